# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Builds the workload programs and the naive accelerator, and runs the comparison.

BENCH_DIR := selftests/bench
BENCH_LOAD := $(patsubst %,$(B)/bench/%.o,netload sock serve work samples loop local)
BENCH_RING := $(patsubst %,$(B)/bench/%.o,barering samples sock ring tune)
BENCH_BIN := $(B)/bench/netload $(B)/bench/barering $(B)/bench/naive
BENCH_ARGS ?=

.PHONY: bench bench-smoke bench-build

bench-build: $(B)/ismredir $(B)/ismredird $(SHIM) $(BENCH_BIN)

# BENCH_ARGS="--rounds 15 --only ping" and the like; see `run.py --help`
bench: bench-build
	$(Q)python3 $(BENCH_DIR)/run.py --build $(B) --markdown docs/bench.md --svg docs/bench.svg \
		--json $(B)/bench/bench.json $(BENCH_ARGS)

# That the bench works, in seconds; its figures mean nothing.
bench-smoke: bench-build
	$(Q)python3 $(BENCH_DIR)/run.py --build $(B) --smoke --markdown $(B)/bench/smoke.md \
		--svg $(B)/bench/smoke.svg --json $(B)/bench/smoke.json $(BENCH_ARGS)

$(BENCH_LOAD) $(B)/bench/barering.o $(B)/bench/naive.o: $(B)/bench/%.o: $(BENCH_DIR)/%.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -std=gnu11 -D_GNU_SOURCE $(WARN) \
		-I$(B) -Iinclude -Iuser/lib -MMD -MP -c -o $@ $<

$(B)/bench/ring.o $(B)/bench/tune.o: $(B)/bench/%.o: user/lib/%.c
	$(call say,CC,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -std=gnu11 $(WARN) \
		-Iinclude -Iuser/lib -MMD -MP -c -o $@ $<

$(B)/bench/naive.o: | $(B)/bench/naive.skel.h

$(B)/bench/naive.bpf.o: $(BENCH_DIR)/naive.bpf.c
	$(call say,BPF,$@)mkdir -p $(@D) && \
		$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $<

$(B)/bench/naive.skel.h: $(B)/bench/naive.bpf.o
	$(call say,SKEL,$@)$(BPFTOOL) gen skeleton $< name naive_bpf > $@

$(B)/bench/netload: $(BENCH_LOAD)
	$(call say,LINK,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

$(B)/bench/barering: $(BENCH_RING)
	$(call say,LINK,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

$(B)/bench/naive: $(B)/bench/naive.o
	$(call say,LINK,$@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lbpf -lelf -lz

-include $(BENCH_LOAD:.o=.d) $(BENCH_RING:.o=.d) $(B)/bench/naive.d $(B)/bench/naive.bpf.d
