/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a device that shares memory by a BAR has what: the memory, the doorbells, the own number. A preset
 * names a known device; options of a spec change it.
 */
#ifndef ISM_FABRIC_BAR_LAYOUT_H
#define ISM_FABRIC_BAR_LAYOUT_H

#include <linux/types.h>

struct ism_err;

#define ISM_BAR_NONE 255

/**
 * struct ism_bar_layout - one device
 * @name: of the preset
 * @mem_bar, @mem_off, @mem_len: the memory; a length of 0 goes to the end of the BAR
 * @bell_bar: of the doorbells, ISM_BAR_NONE when there are none
 * @bell_off, @bell_stride: the doorbell of peer N is the 32-bit register at @bell_off + N * @bell_stride
 * @bell_value, @bell_shift: what is written there: @bell_value, and N << @bell_shift when @bell_shift is not
 *                           0. Little-endian, as all of PCI
 * @id_bar, @id_off: the 32-bit register that has the own number, ISM_BAR_NONE when there is none
 */
struct ism_bar_layout {
	const char *name;
	__u8 mem_bar;
	__u8 bell_bar;
	__u8 id_bar;
	__u8 bell_shift;
	__u32 bell_off;
	__u32 bell_stride;
	__u32 bell_value;
	__u32 id_off;
	__u64 mem_off;
	__u64 mem_len;
};

/** The names of the options, for ism_fabric_check_options() */
#define ISM_BAR_OPTIONS "preset", "mem", "doorbell", "bell-value", "bell-shift", "id"

/**
 * ism_bar_layout_parse() - a layout from the options of a spec
 * @options: "preset=NAME", "mem=BAR:OFFSET[:LENGTH]", "doorbell=BAR:OFFSET:STRIDE" or "doorbell=none",
 *           "bell-value=N", "bell-shift=N", "id=BAR:OFFSET" or "id=none"; others are not looked at. Numbers
 *           may be hexadecimal. Without a preset it is the first, ivshmem
 *
 * Return: 0 or -EINVAL with a text in @err.
 */
int ism_bar_layout_parse(const char *options, struct ism_bar_layout *ret, struct ism_err *err);

/** ism_bar_bell_offset() - of the doorbell of a peer, in its BAR */
static inline __u64 ism_bar_bell_offset(const struct ism_bar_layout *l, unsigned int peer)
{
	return l->bell_off + (__u64)peer * l->bell_stride;
}

/** ism_bar_bell_value() - what is to be written to the doorbell of a peer, in host order */
static inline __u32 ism_bar_bell_value(const struct ism_bar_layout *l, unsigned int peer)
{
	return l->bell_value | (l->bell_shift ? peer << l->bell_shift : 0);
}

#endif
