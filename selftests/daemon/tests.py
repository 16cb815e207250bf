#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The tests of ismredird, one after the other: tests.py [PATTERN], in a box that run.sh has made."""

import sys

import harness
import tests_attach
import tests_life
import tests_protocol

assert tests_attach and tests_life and tests_protocol  # they have registered themselves
harness.main(sys.argv[1] if len(sys.argv) > 1 else "")
