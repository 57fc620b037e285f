"""What a run found as one self-contained HTML page.

``data`` collects what the page shows, ``answer`` the sentences on top, ``page`` makes HTML of it and
``site`` serves it. What the browser does stands in the ``.js`` files beside them.
"""
