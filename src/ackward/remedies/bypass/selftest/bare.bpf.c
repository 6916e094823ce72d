/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * A sockmap and nothing else: what the kernel itself makes of a joined connection. Only the self-test uses it, to tell
 * which differences from TCP the bypass has to make up for.
 */
#include "kernel_types.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct ports {
	u32 local, remote; /* of the receiving end */
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1024);
	__type(key, struct ports);
	__type(value, u64);
} receivers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1024);
	__type(key, struct ports);
	__type(value, u64);
} senders SEC(".maps");

u64 redirected;

SEC("sk_msg")
int redirect(struct sk_msg_md *msg)
{
	struct ports peer = { .local = bpf_ntohl(msg->remote_port), .remote = msg->local_port };

	if (bpf_msg_redirect_hash(msg, &receivers, &peer, BPF_F_INGRESS) == SK_PASS)
		__sync_fetch_and_add(&redirected, 1);
	return SK_PASS;
}
