"""The guides, which stand beside this file, and the site of them and of the API: ``python -m fedsim_np.docs``.

`names` says what is public, `site` makes the pages (with pdoc, the extra ``docs``), and `checking` finds links that
lead nowhere and names that no page has.
"""

GUIDES = (
    "rounds",
    "own_parts",
    "your_data",
    "algorithms",
    "tff",
    "privacy_and_attackers",
    "messages",
    "studies",
    "reproducibility",
    "speed",
    "figures",
    "loggers",
    "secure_aggregation",
    "contributing",
)
"""The pages, in the order in which the site has them."""
