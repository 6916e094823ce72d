/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * A bypass of the shape that the document's project (intel/istio-tcpip-bypass) has: one sockhash by IPv4 addresses and ports, each
 * connection's two ends put in when they are established, every message redirected. To compare with, in a cgroup of its own:
 * it has no scope, no bound and no regard for what was sent before.
 */
#include "kernel_types.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct tuple {
	u32 local_address, local_port, remote_address, remote_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65535);
	__type(key, struct tuple);
	__type(value, u32);
} sockets SEC(".maps");

SEC("sockops")
int established(struct bpf_sock_ops *ops)
{
	struct tuple key = {};

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	key.local_address = ops->local_ip4;
	key.remote_address = ops->remote_ip4;
	key.local_port = ops->local_port;
	key.remote_port = bpf_ntohl(ops->remote_port);
	bpf_sock_hash_update(ops, &sockets, &key, BPF_ANY);
	return 1;
}

SEC("sk_msg")
int redirect(struct sk_msg_md *msg)
{
	struct tuple key = {};

	key.local_address = msg->remote_ip4;
	key.remote_address = msg->local_ip4;
	key.local_port = bpf_ntohl(msg->remote_port);
	key.remote_port = msg->local_port;
	bpf_msg_redirect_hash(msg, &sockets, &key, BPF_F_INGRESS);
	return SK_PASS;
}
