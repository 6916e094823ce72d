/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What a gateway listens for, and which worker is to have a connection: the same in every program of ours. */
#ifndef ACKWARD_GATEWAY_TARGETS_H
#define ACKWARD_GATEWAY_TARGETS_H

#define MAX_TARGETS 64
#define AF_INET 2
#define AF_INET6 10

/* Addresses in network order, IPv4 as ::ffff:0:0/96. */
struct target {
	u32 network[4];
	u32 mask[4];
	u16 first_port, last_port;
	u32 family;
	u32 interface; /* 0: any */
};

struct end {
	u32 address[4];
	u32 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TARGETS);
	__type(key, u32);
	__type(value, struct target);
} targets SEC(".maps");

/* User space fills this in before loading. */
volatile const struct {
	u64 netns; /* cookie */
	u32 targets;
	u32 workers;
	u32 worker; /* of this program */
	u32 unused;
} settings = { .workers = 1 };

static __always_inline void map_ipv4(u32 address[4], u32 ipv4)
{
	address[0] = address[1] = 0;
	address[2] = bpf_htonl(0xffff);
	address[3] = ipv4;
}

/* The number of the target, or -1. `interface` 0: not known, so any. */
static __always_inline int find_target(u32 family, const struct end *local, u32 interface)
{
	u32 number;

	for (number = 0; number < MAX_TARGETS && number < settings.targets; number++) {
		u32 key = number;
		struct target *target = bpf_map_lookup_elem(&targets, &key);
		u32 differ = 0;
		int word;

		if (!target)
			return -1;
#pragma unroll
		for (word = 0; word < 4; word++)
			differ |= (local->address[word] ^ target->network[word]) & target->mask[word];
		if (interface && target->interface && interface != target->interface)
			continue;
		if (!differ && family == target->family && local->port >= target->first_port &&
		    local->port <= target->last_port)
			return number;
	}
	return -1;
}

static __always_inline u32 worker_of(const struct end *remote)
{
	u32 mixed = remote->address[0] ^ remote->address[1] ^ remote->address[2] ^ remote->address[3];

	mixed = (mixed ^ remote->port) * 0x9e3779b1;
	return (mixed >> 16) % settings.workers;
}

#endif
