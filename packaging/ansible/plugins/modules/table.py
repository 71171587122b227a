#!/usr/bin/python
"""What the action ivy.fleet.table is told, for ansible-doc(1): all that it does stands in plugins/action."""

from __future__ import annotations

DOCUMENTATION = r"""
module: table
short_description: Print how ivy nodes are
description:
  - Prints what C(ivy status --json) said on each node as a table for people; below it, what is wrong with each.
  - Writes the same into a file for programs. It runs at the desk and needs no node.
options:
  results:
    description: For each node's name, what the task of the command has registered.
    type: dict
    required: true
  report:
    description: A file to write, C(*.csv) or C(*.json); by default none.
    type: path
author:
  - ivy contributors (@ivy)
"""

EXAMPLES = r"""
- name: Print the table
  ivy.fleet.table:
    results: {roof-1: "{{ ivy_status }}"}
    report: fleet.csv
"""
