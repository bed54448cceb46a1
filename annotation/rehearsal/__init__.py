"""Rehearsal: simulated annotators who try the whole loop before people do.

They sign in and judge over the same HTTP endpoints as a browser, read nothing but what an annotator's page
carries, and prefer completions by a documented hidden utility. Every judgment they make is marked as
simulated in the database.

    utility.py     what they prefer: a pure function, fixed before any training was tuned
    annotator.py   how one of them chooses: noise, position bias, personal taste, ties, "all bad"
    client.py      how they reach the site: sign-in, claim, submit, over plain HTTP

This package knows nothing of Django; the command `manage.py rehearse` is what joins the two.
"""
