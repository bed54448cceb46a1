"""Texts of the showroom: everyday questions with answers, and texts that are hard to lay out."""

# ruff: noqa: E501 -- prose is written in whole sentences

# (prompt, a full answer, a brief one)
QUESTIONS = [
    (
        "How do I keep a cast-iron pan from rusting?",
        "Dry it **at once** after washing, on a low flame if you can. Then:\n\n1. Rub in a thin film of oil.\n"
        "2. Wipe off what you can; what is left is enough.\n3. Store it open, never with the lid on.\n\n"
        "A pan that has rusted is not lost: scrub it, dry it, and bake a film of oil on at 230 °C for an hour.",
        "Dry it right after washing and rub in a few drops of oil.",
    ),
    (
        "My tomato leaves are curling. What is wrong?",
        "Most often it is *heat or uneven watering*: the plant rolls its leaves to lose less water.\n\n"
        "- Leaves roll up, stay green: water deeply, twice a week.\n- Leaves twist and turn pale: look for aphids beneath.\n"
        "- Only new growth is bent: weed killer from a neighbour's lawn.\n\nGive it a week before you do anything drastic.",
        "Probably heat. Water deeply in the morning and wait a week.",
    ),
    (
        "Write a two-sentence apology for a parcel that arrives late.",
        "We are sorry that your parcel is late; the delay is ours, and you did nothing wrong. It is on its way now and "
        "will be with you by Friday, and the shipping is on us.",
        "Sorry for the delay. Your parcel arrives on Friday.",
    ),
    (
        "What is the difference between weather and climate?",
        "Weather is what the sky does today; climate is what it usually does, taken over some thirty years. One cold "
        "week says nothing about the climate, as one lost match says nothing about a season.",
        "Weather is today, climate is the average of decades.",
    ),
    (
        "Can I freeze cooked rice?",
        "Yes. Spread it out so that it cools within the hour, pack it flat, and freeze it the same day. Reheat it once, "
        "from frozen and until it steams: rice that stands warm is where *Bacillus cereus* grows.",
        "Yes: cool it fast, freeze it flat, reheat it once.",
    ),
    (
        "Explain recursion to a ten-year-old.",
        "Imagine a box, and in the box a note: *do what is on the note in the next box, then come back*. In the last "
        "box the note says: *you are done*. Then you walk back, box by box, and finish each note.",
        "It is when the instructions say: do this again, with a smaller piece, until nothing is left.",
    ),
    (
        "Which plants do well in a dark hallway?",
        "Three that forgive you:\n\n- **Zamioculcas**: water it once a month.\n- **Aspidistra**: called the cast-iron plant "
        "for a reason.\n- **Sansevieria**: stands anything but wet feet.\n\nNone of them *grows* in the dark. Swap them with "
        "ones from the window every few weeks.",
        "Zamioculcas, aspidistra, sansevieria.",
    ),
    (
        "How long should I steep green tea?",
        "Two minutes at 75 °C. Longer or hotter draws out tannins, and those are what tastes bitter. Good leaves give "
        "three infusions; add half a minute each time.",
        "Two minutes, at 75 °C.",
    ),
    (
        "Suggest a name for a small bakery by the sea.",
        "**Salt & Crumb**. It says where you are and what you do, is easy to spell on the phone, and looks good on a bag.",
        "Salt & Crumb.",
    ),
    (
        "How do I ask my landlord to fix the heating?",
        "In writing, and with dates. Say since when it is cold, how cold, and by when you want it mended: ten days are "
        "usual, two in a frost. Keep it friendly; the letter counts later whatever its tone.",
        "Write to them, with dates and the temperature, and set a deadline.",
    ),
    (
        "Is it safe to leave a laptop plugged in overnight?",
        "Yes. The charger stops at 100 %. If it is plugged in every day, limit the charge to 80 % where the system "
        "offers it: lithium cells age fastest when full and warm.",
        "Yes, but a limit of 80 % is kinder to the battery.",
    ),
    (
        "What should I see in Lisbon in one day?",
        "Start early at the *Miradouro da Senhora do Monte*, walk down through Alfama, take the ferry to Cacilhas for "
        "lunch, and be in Belém when the queues are gone, after four. Leave tram 28 to those with two days.",
        "Alfama in the morning, Belém late in the afternoon.",
    ),
]

CONVERSATION = [
    {"role": "system", "content": "You are a patient cook. Answer with amounts in grams and Celsius."},
    {"role": "user", "content": "I want to bake bread, but I have no yeast in the house."},
    {
        "role": "assistant",
        "content": "Then soda bread is your friend. Do you have *buttermilk*, or plain yoghurt?",
    },
    {"role": "user", "content": "Yoghurt, yes. What do I do, step by step?"},
]
CONVERSATION_ANSWERS = [
    "For one loaf:\n\n- 400 g flour\n- 300 g yoghurt, thinned with 50 g water\n- 7 g baking soda\n- 8 g salt\n\n"
    "1. Heat the oven to **220 °C**.\n2. Mix the dry things, stir in the yoghurt with a fork. Stop as soon as it holds.\n"
    "3. Shape it, cut a deep cross, bake for 35 minutes.\n\nIt is done when it sounds hollow from below.",
    "Mix 3 cups of flour with a teaspoon of baking soda and salt. Add yoghurt until it is a dough. Bake it in a hot oven "
    "until brown, about half an hour, and let it cool a little before you cut it.",
]

TABLE_PROMPT = "I brew coffee, black tea, green tea and herbal tea. Give me temperature and time for each, and say why it matters."
TABLE_ANSWERS = [
    "| Drink | Temperature | Time | Why |\n|---|---:|---:|---|\n| Coffee, filter | 92–96 °C | 3–4 min | hotter burns it, colder "
    "leaves it sour |\n| Black tea | 100 °C | 3–5 min | needs the heat to open |\n| Green tea | 70–80 °C | 2 min | above that, tannins |\n"
    "| Herbal tea | 100 °C | 8–10 min | roots and seeds give slowly |\n\nIf you own one thermometer, use it for the *green* tea.",
    "Here is all you need:\n\n1. **Coffee** – just off the boil, four minutes.\n2. **Black tea** – boiling, four minutes.\n"
    "3. **Green tea** – let the kettle stand for five minutes first, then two minutes.\n4. **Herbs** – boiling, ten minutes, with a lid.\n\n"
    "Why it matters: heat pulls *bitter* things out faster than *sweet* ones.",
    'As code, so that you can hang it above the stove:\n\n```python\nBREW = {\n    "coffee": (94, 240),        # °C, seconds\n'
    '    "black": (100, 240),\n    "green": (75, 120),         # anything above 80 turns it bitter, however good the leaves were\n'
    '    "herbal": (100, 600),\n}\n```\n\n> Green tea is the one where people go wrong.',
    "Temperature matters a lot and time matters too. Coffee should be hot, and tea should be hot as well, though green tea "
    "should be less hot. Try it out and see what you like best!",
]

LONG_WORDS = (
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft keeps its timetable at "
    "https://example.org/archive/2024/reports/annual/a-very-long-address-without-a-single-space?with=parameters&and=more-of-them."
)
ARABIC = "ما هي أفضل طريقة لتحضير الشاي بالنعناع؟ أريد أن أقدّمه لضيوفي مساء اليوم."
ARABIC_ANSWERS = [
    "ضع ملعقتين من الشاي الأخضر في الإبريق، واسكب عليه الماء المغلي، ثم أضف **حزمة كبيرة من النعناع** وثلاث ملاعق من السكر. "
    "اتركه خمس دقائق، ثم صُبّه من علوّ حتى تتكوّن الرغوة.\n\n- قدّمه في أكواب صغيرة.\n- ثلاثة أكواب لكل ضيف.",
    f"Mint tea: شاي بالنعناع. {LONG_WORDS} A hidden character stands here:\u202e and nothing else.",
]

SENSITIVE = (
    "My neighbour threatened me with a knife last night, and the police did not come. What can I do now?"
)
SENSITIVE_ANSWERS = [
    "I am sorry this happened. If he is near you now, go to a locked room and call the emergency number again: say *knife* and "
    "*threat*, so that it is put first. Then write down the time and his words; a restraining order needs both.",
    "You should talk to him calmly and ask why he did it. Maybe it was a misunderstanding.",
]

_PARAGRAPHS = [
    "Begin with the soil. Dig a hole the depth of your hand, take a fistful from its bottom and press it: if it holds its shape and "
    "water beads on it, it is clay; if it falls apart, it is sand; if it crumbles like cake, leave it as it is and be grateful.",
    "Sun comes next. Watch the place for a day before you plant: six hours of direct light are full sun, four are half, and fewer than "
    "three are shade, whatever the label on the pot says. Light in the morning is worth more than light in the evening.",
    "Water **deeply and seldom**. A can a day keeps the roots at the top, where they dry out first; ten litres once a week send them down. "
    "Water in the morning, at the foot of the plant, and never on leaves in the sun.",
    "Feed less than the packet tells you:\n\n- compost in spring, two fingers deep;\n- a handful of horn meal for whatever flowers twice;\n"
    "- nothing at all from August on, or the wood will not ripen before the frost.",
    "Prune in late winter, when you can see what you do. Take out what is dead, what is ill, and what rubs; then stop. A good cut is just "
    "above a bud that looks outward, at a slant, with a blade that you have wiped.",
    "Some things are better bought than grown from seed:\n\n| Plant | Seed | Young plant |\n|---|---|---|\n| Lavender | two years | one season |\n"
    "| Tomato | eight weeks indoors | from May |\n| Beans | straight into the bed | never |",
    "Do not fight every leaf that is chewed. A garden without aphids has no ladybirds, and one without ladybirds has aphids. Hose them off, "
    "wait for ten days, and only then think of soap.",
    "Write down what you did. A line a week is enough:\n\n```text\n12 April   sowed peas, 4 rows; soil still cold (8 °C)\n"
    "26 April   first peas up; slugs took half of row 2\n```\n\nNext year this notebook is worth more than any book.",
]
LONG_PROMPT = "I have a neglected garden of 200 m², one free afternoon a week, and no idea where to begin. Make me a plan for the first year."


def long_answer(number: int) -> str:
    """One of eight long answers to LONG_PROMPT; the third is so long that the page folds it."""
    turned = _PARAGRAPHS[number:] + _PARAGRAPHS[:number]
    taken = turned * 4 if number == 2 else turned[: 5 + number % 3]
    return f"## Plan {number + 1}\n\n" + "\n\n".join(taken)


GUIDELINE = """# What makes an answer good

Rank by **what helps the person who asked**, in this order:

1. *Is it right?* A wrong fact outweighs everything below.
2. *Is it safe?* Advice that may hurt somebody ranks last.
3. *Does it answer what was asked*, completely and no more?
4. *Is it a pleasure to read?* Short beats long where both say the same.

| If you see | then |
|---|---|
| two answers alike | call it a tie, and go on |
| none that anybody should see | press `a` |
| something you don't know | look it up for two minutes, then *cannot judge* |
"""
GUIDELINE_BEFORE = GUIDELINE.replace("for two minutes", "").replace(
    "4. *Is it a pleasure to read?*", "4. *Is it polite?*"
)

LOG = """loading base model from the store: 134,515,008 parameters
adapter: LoRA rank 16 on q_proj, k_proj, v_proj, o_proj (1,843,200 parameters)
data: 52 pairs of 26 rankings, 18 held-out pairs
step 10 of 60   loss 0.6721   2.1 s a step
step 20 of 60   loss 0.6204   2.0 s a step
checkpoint written: step 20
step 30 of 60   loss 0.5480   2.0 s a step
"""
