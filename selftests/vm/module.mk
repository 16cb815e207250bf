# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Guests with another kernel: the tests that need more than one.

VM	:= $(B)/vm

.PHONY: vm-tools vm-system check-vm bench-vm vm-transcript
vm-tools: $(VM)/agent $(VM)/devtool $(VM)/fabpair $(B)/fabric/contract vm-system

# This build as `make install` installs it
vm-system: all
	$(Q)rm -rf $(VM)/system && \
		$(MAKE) --no-print-directory install DESTDIR=$(abspath $(VM)/system) >/dev/null

check-vm: all vm-tools
	$(Q)B=$(abspath $(B)) python3 selftests/vm/run.py $(VM_ARGS)

# docs/vm-transcript.rst, anew
vm-transcript: all vm-tools
	$(Q)B=$(abspath $(B)) python3 selftests/vm/transcript.py >$(VM)/transcript && mv $(VM)/transcript docs/vm-transcript.rst

$(VM)/agent: selftests/vm/agent.c
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -std=gnu11 $(WARN) -static -o $@ $<

$(VM)/devtool $(VM)/fabpair: $(VM)/%: selftests/vm/%.c $(B)/libismfabric.a $(B)/libismredir.a
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(OWN_CFLAGS) -pie -o $@ $^

# Figures into docs/bench-vm.md; QEMU gets the CPUs that it wants.
bench-vm: all vm-tools bench-build
	$(Q)cp selftests/vm/bench-head.md $(B)/vm/bench-vm.md && \
	B=$(abspath $(B)) VM_NICE=0 python3 selftests/vm/bench.py --markdown $(B)/vm/bench-vm.md && \
	B=$(abspath $(B)) VM_NICE=0 python3 selftests/vm/bench.py --over plain --markdown $(B)/vm/bench-vm.md && \
	B=$(abspath $(B)) VM_NICE=0 python3 selftests/vm/bench.py --over cxl --markdown $(B)/vm/bench-vm.md && \
	cp $(B)/vm/bench-vm.md docs/bench-vm.md
