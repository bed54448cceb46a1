"""A database in which every page has something to show: the pictures in deploy/PAGES.md, axe-core and the zoom tests.

room = fill(folder)          # tests.showroom.filling
pages(room)                  # tests.showroom.pages: every page, who sees it there, and what they press
"""
