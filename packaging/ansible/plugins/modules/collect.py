#!/usr/bin/python
"""What the action ivy.fleet.collect is told, for ansible-doc(1): all that it does stands in plugins/action."""

from __future__ import annotations

DOCUMENTATION = r"""
module: collect
short_description: Copy what is new of an ivy node's archive
description:
  - Appends to files at the desk what the days of a node's archive have more than they, in pieces. Never replaces
    anything by less; a day of the node that is another one gets a file of its own.
options:
  there:
    description: The archive on the node.
    type: path
    required: true
  here:
    description: The directory at the desk.
    type: path
    required: true
author:
  - ivy contributors (@ivy)
"""

EXAMPLES = r"""
- name: Collect
  ivy.fleet.collect:
    there: /var/lib/ivy/data/messages
    here: archive/roof-1
"""
