#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Become a command on one of the two hosts: `host.sh NAMESPACE CGROUP PINS SOCKET COMMAND...`

set -e
echo 0 >"$2/cgroup.procs"
export ISMREDIR_PIN_DIR=$3 ISMREDIR_SOCK=$4
exec nsenter --net="/run/netns/$1" -- "${@:5}"
