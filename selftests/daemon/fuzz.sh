#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Runs the fuzzer of what clients send for SECONDS: `fuzz.sh BUILD SECONDS [OPTIONS OF LIBFUZZER]`. It
# starts from a few exchanges as real clients make them. An input that breaks something goes to
# BUILD/daemon/control-crash-*.

set -u
BUILD=${1:?usage: fuzz.sh BUILD SECONDS [OPTIONS]}
SECS=${2:?usage: fuzz.sh BUILD SECONDS [OPTIONS]}
shift 2
SEEDS=$BUILD/daemon/control-seeds
FOUND=$BUILD/daemon/control-corpus
LOG=$BUILD/daemon/control-fuzz.log

HELLO='\x00\x08\x01\0\0\0\0\0\0\0\0'
ATTACH2='\x10\x00\x10\x03\x02\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0'
DETACH2='\x00\x08\x05\x02\0\0\0\0\0\0\0'
LEAVE2='\x00\x08\x10\x02\0\0\0\0\0\0\0'
LIST='\x00\x00\x08'
RESUME2='\x50\x00\x04\x05\x06\x07\x20\x06\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\x01\0\0\0\x01\0'
OTHER='\x01\x08\x01\0\0\0\0\0\0\0\0\x11\x00\x10\x03\x03\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0'

# seed NAME BYTES...
seed()
{
	printf '%b' "${*:2}" >"$SEEDS/$1"
}

rm -rf "$SEEDS"
mkdir -p "$SEEDS" "$FOUND"
seed status "$HELLO\x00\x00\x0d"
seed attach "$HELLO$ATTACH2$LIST$DETACH2\x00\x00\x0b"
seed both "$HELLO$OTHER$ATTACH2$LIST"
seed leave "$HELLO$ATTACH2$LEAVE2$LIST$ATTACH2"
seed resume "$HELLO$ATTACH2$DETACH2$RESUME2$LIST"
seed again "$HELLO$ATTACH2$OTHER$RESUME2"
seed junk '\x04\x04abcd'

# twice the time and a minute is a hang; one input gets ten seconds
if timeout -k 10 $((SECS * 2 + 60)) "$BUILD/daemon/fuzz_control" -max_total_time="$SECS" -timeout=10 -max_len=1024 \
	-rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$BUILD/daemon/control-" "$@" "$FOUND" "$SEEDS" \
	>"$LOG" 2>&1; then
	printf 'ok    fuzz_control %s inputs\n' "$(sed -n 's/^stat::number_of_executed_units: *//p' "$LOG")"
	exit 0
fi
tail -n 40 "$LOG"
echo "FAIL  fuzz_control: see $LOG"
exit 1
