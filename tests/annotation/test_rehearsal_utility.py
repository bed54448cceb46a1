"""The hidden utility of simulated annotators: what it prefers, and that no appended phrase can game it."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.rehearsal.utility import WEIGHTS, parts, utility

# Twelve prompts with five completions each, of the kinds a 135M-parameter model writes under a cap of 64
# tokens: finished and to the point, finished but short, cut off in mid-sentence, rambling, looping, off the
# topic, near-JSON.
COMPLETIONS: dict[str, list[str]] = {
    "My parcel was marked as delivered yesterday but it is not here. What should I do?": [
        "I'm sorry your parcel has not arrived. Please check with your neighbours first, and if it is not "
        "there, send us your order number so that we can ask the carrier.",
        "If your parcel was marked as delivered but is not here, you can contact the shipping company to "
        "find out where it is. You can also check the tracking number to see if there are any updates on "
        "the delivery. If the parcel is still not there, you may want to contact the",
        "I'm sorry to hear that. You can try to contact the sender and ask them to send you a new parcel. "
        "You can also try to contact the sender and ask them to send you a new parcel. You can also try "
        "to contact the sender and ask",
        "Contact the carrier and ask where the parcel is.",
        "Here are some steps you can take:\n\n1. Check the tracking number: You can check the tracking "
        "number on the website of the carrier.\n2. Contact the carrier: If you are not able to find the "
        "parcel, you can contact the carrier to ask for\n3. Ask for",
    ],
    "Why is the sky blue during the day but red at sunset?": [
        "Air scatters blue light more than red. At sunset the light travels through more air, so most of "
        "the blue is gone and the red remains.",
        "The sky is blue during the day because of a phenomenon called Rayleigh scattering. When sunlight "
        "enters the Earth's atmosphere, it encounters tiny molecules of gases such as nitrogen and "
        "oxygen. These molecules scatter the shorter wavelengths of light, such as blue and",
        "The sky is blue because of the sky being blue and the sun being red.",
        "The color of the sky is a fascinating topic that has captivated humans for centuries. It is a "
        "beautiful and awe-inspiring sight that can be seen in many different parts of the world, and it "
        "is important to note that there are many factors which contribute to",
        "It is because of the way the light is scattered in the air.",
    ],
    "Rewrite this politely: send me the report now, I have been waiting all week.": [
        "Could you please send me the report today? I have been waiting for it all week and would be very "
        "grateful.",
        "I have been waiting all week for the report. I have been waiting all week for the report, and I "
        "am very sorry for the inconvenience. I have been waiting all week for the report.",
        "Dear [Name],\n\nI hope this email finds you well. I am writing to request that you send me the "
        "report as soon as possible. I have been waiting all week for the report and I am concerned that "
        "it has not been received. I would appreciate it if you could",
        "Please send the report as soon as you can.",
        "Sure! Here is a polite version of the text you have provided, which I have rewritten in order to "
        "make it more clear and concise and easier to read for the person who",
    ],
    'Extract name and city as JSON with keys "name" and "city": Maria Lopez moved to Lisbon in May.': [
        '{"name": "Maria Lopez", "city": "Lisbon"}',
        'Here is the JSON:\n\n```json\n{"name": "Maria Lopez", "city": "Lisbon"}\n```',
        '{"name": "Maria Lopez", "city": "Lisbon", "name": "Maria Lopez", "city": "Lisbon", "name": '
        '"Maria Lopez", "city": "Lisbon", "name": "Maria Lopez", "city": "Lis',
        "Maria Lopez moved to Lisbon in May.",
        "To extract the name and the city as JSON, we can use the following Python "
        'code:\n\n```python\nimport json\n\ndata = {\n    "name": "Maria Lopez",\n    "city": '
        '"Lisbon"\n}\n\n# Extract the name',
    ],
    "My landlord wants to enter my flat without notice. Is that allowed?": [
        "In most places a landlord must give notice, often 24 hours, unless there is an emergency. Look "
        "at your lease and ask a local tenants' advice service.",
        "As a landlord, it is important to respect the privacy of your tenants. However, there are some "
        "situations in which a landlord may need to enter a flat without notice. For example, if there is "
        "an emergency, such as a fire or a flood, the landlord may",
        "Yes, it is allowed.",
        "No. Your landlord usually needs to give you notice before entering the flat.",
        "I'm sorry, but as an AI assistant I am not able to give you legal advice. I am here to help you "
        "with any questions that you may have. I am here to help you with any questions that you may have "
        "about the",
    ],
    "I have a mild headache after a long day at the screen. What can I try at home?": [
        "Drink some water, rest your eyes and take a short walk in fresh air. If the headache gets strong "
        "or stays for days, see a doctor.",
        "There are several things you can try at home to help with a mild headache. First, try to take a "
        "break from the screen and rest your eyes. You can also try to drink plenty of water and get some "
        "sleep. If the headache persists, you can try taking",
        "You can try to rest. You can try to rest your eyes. You can try to rest your eyes and your head. "
        "You can try to rest your eyes and your head and your neck.",
        "Take a break from the screen and drink a glass of water.",
        "1. Take a deep breath and relax.\n2. Take a deep breath and relax.\n3. Take a deep breath and "
        "relax.\n4. Take a deep breath and relax.\n5. Take a deep",
    ],
    "What is the capital of Australia, and why is it not Sydney?": [
        "The capital of Australia is Canberra. It was built as a compromise between Sydney and Melbourne, "
        "which both wanted to be the capital.",
        "Canberra.",
        "The capital of Australia is Sydney. Sydney is the capital of Australia because it is the largest "
        "city in Australia and it is the capital of Australia.",
        "The capital of Australia is Canberra, which is located in the Australian Capital Territory. The "
        "city was founded in 1913 as a planned city and it has been the capital since 1927 when the "
        "parliament moved there from Melbourne, and it is also the home of many national",
        "Australia is a country with a rich history and a diverse culture, which is reflected in the many "
        "cities and towns that are scattered across the continent and the many people who live there and",
    ],
    "Explain to a ten-year-old how a vaccine works.": [
        "A vaccine shows your body a harmless picture of a germ. Your body practises fighting it, so when "
        "the real germ comes, it already knows how to win.",
        "A vaccine is a type of medicine that helps to protect the body from getting sick. It works by "
        "introducing a small amount of a weakened or dead germ into the body, which triggers the immune "
        "system to produce antibodies. These antibodies then help to fight off",
        "Imagine you have a big box of toys, and you want to make sure that all of your toys are safe. "
        "You take out a toy and look at it closely. Then you put it back in the box and close the lid. "
        "That is",
        "Vaccines are good. They are good for you. They are good for your body. They are good for your "
        "family.",
        "It is an injection that helps the body to fight a disease.",
    ],
    "Write a friendly answer to a customer whose refund takes longer than promised.": [
        "Thank you for your patience, and sorry for the delay. Your refund is on its way and should reach "
        "your account within three working days.",
        "Dear Customer,\n\nThank you for your patience and understanding. We apologize for the delay in "
        "processing your refund. We are working hard to resolve this issue and we will keep you updated "
        "on the progress. We appreciate your business and look forward to",
        "Hi there,\n\nI hope you are doing well.\n\nBest regards,\n[Your Name]\n[Your Title]\n[Your "
        "Company]\n[Your Phone Number]\n[Your Email]",
        "We are sorry for the delay.",
        "Here is a friendly answer to a customer whose refund takes longer than promised: A customer "
        "whose refund takes longer than promised can be a customer whose refund takes longer than "
        "promised and a customer",
    ],
    "How do bees make honey?": [
        "Bees collect nectar from flowers, carry it to the hive and pass it from mouth to mouth. Then "
        "they fan it with their wings until it is thick.",
        "Bees make honey by collecting nectar from flowers and storing it in their honey stomachs.",
        "Bees make honey by collecting nectar from flowers. They use their long tongue to suck up the "
        "nectar and store it in their honey stomach. When they return to the hive, they pass the nectar "
        "to other bees, who chew it and mix it with enzymes. The enzymes break",
        "Honey is made from honey, and honey is made by bees that make honey from honey in the honey of "
        "the bees.",
        "There are many types of insects in the world and each of them has its own way of life. Some of "
        "them live in the water while others live on land or in the trees, and they eat many different",
    ],
    'Return JSON with "product" and "problem": The kettle I bought leaks at the bottom.': [
        '{"product": "kettle", "problem": "It leaks at the bottom"}',
        "The kettle leaks at the bottom because the seal is broken. You should contact the seller and ask "
        "for a new one.",
        '```\n{\n  "product": "kettle",\n  "problem": "The kettle I bought leaks at the bottom.",\n  '
        '"solution": "The kettle should be replaced with a new kettle.",\n  "reason": "The kettle I '
        "bought leaks",
        '{"product" "problem"}',
        "JSON is a lightweight format for the exchange of data between a server and a client. It is easy "
        "for humans to read and write, and it is easy for machines to parse. In order to return the JSON "
        "you",
    ],
    "Give me one tip for sleeping better.": [
        "Go to bed at the same time every night and leave your phone in another room, so that your body "
        "learns when it is time to sleep.",
        "One tip for sleeping better is to create a relaxing bedtime routine. This can include activities "
        "such as reading a book, taking a warm bath, or practicing deep breathing exercises. These "
        "activities can help to calm your mind and body, making it easier to fall asleep and",
        "You should try to sleep for eight hours.",
        "Avoid coffee in the afternoon.",
        "One tip for sleeping better is to sleep better. Sleeping better is a good tip for sleeping "
        "better, and it is also a good way of sleeping better because sleeping better is",
    ],
}

PHRASES = [
    ".",
    "!",
    "...",
    "Thank you.",
    "I hope this helps!",
    "Let me know if you have any questions.",
    "Please let me know if there is anything else that I can help you with today.",
    "In conclusion, it is important to keep this in mind.",
    "The end.",
    "Yes.",
    "{}",
    "[]",
    '{"answer": "yes"}',
    "```",
    "\n",
    "\n\nBest regards",
    "\n1.",
    "It depends on many different factors such as time, money, weather, health and luck.",
    "🙂",
    "<prompt>",
    "<prompt>.",
    "<first words of the prompt>.",
]

PAIRS = [(prompt, completion) for prompt, completions in COMPLETIONS.items() for completion in completions]


def spelled_out(phrase: str, prompt: str) -> str:
    return {
        "<prompt>": prompt,
        "<prompt>.": prompt.rstrip("?.!") + ".",
        "<first words of the prompt>.": " ".join(prompt.split()[:5]) + ".",
    }.get(phrase, phrase)


def gains(phrase: str) -> list[float]:
    """What appending the phrase adds to the utility of each completion."""
    return [
        utility(prompt, completion + " " + spelled_out(phrase, prompt)) - utility(prompt, completion)
        for prompt, completion in PAIRS
    ]


def deviation_within_prompts() -> float:
    """The standard deviation around each prompt's own mean: only such differences are ever judged."""
    squares = [
        (utility(prompt, text) - statistics.mean(utility(prompt, other) for other in texts)) ** 2
        for prompt, texts in COMPLETIONS.items()
        for text in texts
    ]
    return (sum(squares) / (len(PAIRS) - len(COMPLETIONS))) ** 0.5


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


@pytest.mark.parametrize("phrase", PHRASES, ids=repr)
def test_no_appended_phrase_gains_one_standard_deviation_on_average(phrase: str) -> None:
    assert statistics.mean(gains(phrase)) < 0.5 * deviation_within_prompts()


@pytest.mark.parametrize("phrase", [phrase for phrase in PHRASES if len(phrase.split()) < 10], ids=repr)
def test_a_short_appended_phrase_gains_less_than_one_standard_deviation_even_where_it_helps_most(
    phrase: str,
) -> None:
    assert percentile(gains(phrase), 95) < deviation_within_prompts()


@pytest.mark.parametrize("phrase", [phrase for phrase in PHRASES if len(phrase.split()) >= 10], ids=repr)
def test_a_whole_appended_sentence_gains_little_more_even_where_it_helps_most(phrase: str) -> None:
    """Behind a short answer it makes the length of a full one: no measure of length can tell."""
    assert percentile(gains(phrase), 95) < 1.25 * deviation_within_prompts()


def test_the_measure_of_gaming_notices_a_utility_that_can_be_gamed() -> None:
    """The control: a utility that only asks for a full stop fails the same measure."""
    ends = [float(text.rstrip().endswith(".")) for _, text in PAIRS]
    gain_of_a_full_stop = [1.0 - before for before in ends]
    assert percentile(gain_of_a_full_stop, 95) > statistics.stdev(ends)


@pytest.mark.parametrize("prompt", COMPLETIONS, ids=lambda prompt: prompt[:30])
def test_the_finished_answer_on_the_topic_beats_rambling_and_looping_ones(prompt: str) -> None:
    """The first of each list is what a careful reader would choose; a second good one may come close."""
    best, *others = (utility(prompt, text) for text in COMPLETIONS[prompt])
    assert best >= max(others) - 0.25 * deviation_within_prompts()
    assert best - statistics.mean(others) > 0.5


def test_an_empty_completion_is_worth_nothing() -> None:
    for nothing in ["", "   \n", "...", "🙂"]:
        assert utility("What is rain?", nothing) == 0


def test_a_few_more_words_change_the_utility_only_a_little() -> None:
    """Length and ending are smooth: neither a word limit nor a last word decides by itself."""
    words = [f"word{i}" for i in range(80)]
    for count in range(5, 79):
        finished = [utility("", " ".join(words[:n]) + ".") for n in (count, count + 1)]
        cut_off = [utility("", "One two. " + " ".join(words[:n])) for n in (count, count + 1)]
        assert abs(finished[0] - finished[1]) < 0.3
        assert abs(cut_off[0] - cut_off[1]) < 0.3


def test_length_is_best_at_25_words_and_falls_on_both_sides() -> None:
    scores = [parts("", " ".join(f"word{i}" for i in range(count))).length for count in range(1, 60)]
    assert scores.index(max(scores)) == 24
    assert scores[:25] == sorted(scores[:25])
    assert scores[24:] == sorted(scores[24:], reverse=True)


def test_an_unfinished_sentence_scores_below_a_finished_one() -> None:
    assert parts("", "Rain falls from clouds.").finish == 1
    assert parts("", "Rain falls from clouds. It also").finish == pytest.approx(1 / (1 + 2 / 6))
    assert parts("", 'She said: "Rain falls."').finish == 1
    assert parts("", "Rain falls out of the.").finish < 1, "a full stop behind `the` finishes nothing"
    assert parts("", "Do this:\n1. Wait.\n2.").finish == 1  # a bare list number is no loose word
    assert parts("", '{"rain": "yes"}').finish == 1


def test_repeated_bigrams_cost_freshness() -> None:
    fresh = "Water rises as vapour, cools down and falls as rain."
    assert parts("", fresh).freshness == 1
    assert parts("", " ".join([fresh] * 4)).freshness < 0.05


def test_relevance_counts_different_topic_words_and_saturates() -> None:
    prompt = "Why do refunds for damaged parcels take so long?"
    assert parts(prompt, "It is what it is.").relevance == 0
    one, two = (
        parts(prompt, text).relevance for text in ["A refund is slow.", "A refund for a damaged one is slow."]
    )
    assert 0 < one < two < 1
    assert parts(prompt, "Refund, refund, refund.").relevance == one


def test_an_echo_of_the_prompt_is_no_answer() -> None:
    prompt = "My kettle leaks at the bottom and the seller does not answer my letters."
    assert parts(prompt, prompt).length == 0
    assert parts(prompt, prompt).relevance == 0


def test_form_matters_only_when_json_was_asked_for() -> None:
    asked = "Give me name and city as JSON: Ana lives in Porto."
    whole = parts(asked, '{"name": "Ana", "city": "Porto"}').form
    wrapped = parts(asked, 'Here you are: {"name": "Ana", "city": "Porto"}').form
    broken = parts(asked, '{"name": "Ana", "city": "Por').form
    prose = parts(asked, "Ana lives in Porto.").form
    assert whole == 1
    assert whole > wrapped > broken > prose == 0
    assert parts(asked, "{}").form == 0
    assert parts("Where does Ana live?", '{"city": "Porto"}').form == 0.5


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_texts_have_a_utility_within_the_sum_of_the_weights(prompt: str, completion: str) -> None:
    assert all(0 <= score <= 1 for score in parts(prompt, completion))
    assert 0 <= utility(prompt, completion) <= sum(WEIGHTS) + 1e-9
    assert utility(prompt, completion) == utility(prompt, completion)


@given(st.text(alphabet='{}[]":, a1\n', max_size=200))
def test_broken_json_never_raises(text: str) -> None:
    assert 0 <= parts("JSON please", text).form <= 1
