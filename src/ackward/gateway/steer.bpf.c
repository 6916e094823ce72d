// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Gives each connection for one of our targets, whatever its address and port, to a listener of the gateway: to that of
 * the worker that the early program tells of its SYN, too.
 *
 * Laws: what is for no target of ours finds its socket as without us; without a living listener of ours likewise. A
 * transparent target is for one interface: so the gateway's own connections to these addresses never come back to it.
 */
#include "kernel_types.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "targets.h"

char LICENSE[] SEC("license") = "GPL";

#define IPPROTO_TCP 6
#define MAX_WORKERS 64

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, MAX_TARGETS * MAX_WORKERS);
	__type(key, u32);
	__type(value, u64);
} listeners SEC(".maps");

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *lookup)
{
	struct end local = {}, remote = {};
	struct bpf_sock *listener;
	int target;
	u32 key;

	if (lookup->protocol != IPPROTO_TCP)
		return SK_PASS;
	local.port = lookup->local_port;
	remote.port = bpf_ntohs(lookup->remote_port);
	if (lookup->family == AF_INET) {
		map_ipv4(local.address, lookup->local_ip4);
		map_ipv4(remote.address, lookup->remote_ip4);
	} else if (lookup->family == AF_INET6) {
		local.address[0] = lookup->local_ip6[0];
		local.address[1] = lookup->local_ip6[1];
		local.address[2] = lookup->local_ip6[2];
		local.address[3] = lookup->local_ip6[3];
		remote.address[0] = lookup->remote_ip6[0];
		remote.address[1] = lookup->remote_ip6[1];
		remote.address[2] = lookup->remote_ip6[2];
		remote.address[3] = lookup->remote_ip6[3];
	}
	target = find_target(lookup->family, &local, lookup->ingress_ifindex);
	if (target < 0)
		return SK_PASS;
	key = target * MAX_WORKERS + worker_of(&remote);
	listener = bpf_map_lookup_elem(&listeners, &key);
	if (!listener)
		return SK_PASS;
	/* The worker is chosen already: not by the hash of the port that they share. */
	bpf_sk_assign(lookup, listener, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(listener);
	return SK_PASS;
}
