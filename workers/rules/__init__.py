"""Combinations of fields that cannot exist, each with its remedy; by what they speak of.

The order decides which of several errors a user hears of first: that of the parts of a trial."""

from workers.rules import app, driver, life, machine, nic, window

RULES = (*life.RULES, *machine.RULES, *driver.RULES, *app.RULES, *window.RULES, *nic.RULES)
