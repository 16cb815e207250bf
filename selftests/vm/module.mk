# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Guests with another kernel: the tests that need more than one.

VM	:= $(B)/vm

.PHONY: vm-tools check-vm vm-transcript
vm-tools: $(VM)/agent $(VM)/devtool $(VM)/fabpair $(B)/fabric/contract

check-vm: all vm-tools
	$(Q)B=$(abspath $(B)) python3 selftests/vm/run.py $(VM_ARGS)

# docs/vm-transcript.rst, anew
vm-transcript: all vm-tools
	$(Q)B=$(abspath $(B)) python3 selftests/vm/transcript.py >$(VM)/transcript && mv $(VM)/transcript docs/vm-transcript.rst

$(VM)/agent: selftests/vm/agent.c
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -std=gnu11 $(WARN) -static -o $@ $<

$(VM)/devtool $(VM)/fabpair: $(VM)/%: selftests/vm/%.c $(B)/libismfabric.a $(B)/libismredir.a
	$(call say,LINK,$@)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(OWN_CFLAGS) -pie -o $@ $^
