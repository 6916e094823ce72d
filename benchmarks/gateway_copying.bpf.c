/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A relay in a sockmap and nothing else: what one socket of a pair receives is sent by the other. */
#include "kernel_types.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* The ports of the socket that receives; the value is the one that sends. */
struct ports {
	u32 local, remote;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 8192);
	__type(key, struct ports);
	__type(value, u32);
} peers SEC(".maps");

SEC("sk_skb")
int received(struct __sk_buff *skb)
{
	struct ports key = {.local = skb->local_port, .remote = bpf_ntohl(skb->remote_port)};

	return bpf_sk_redirect_hash(skb, &peers, &key, 0);
}
