// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Tells user space of each SYN for a listener of the gateway, so that the far connection begins while the near handshake
 * still runs.
 *
 * BPF_SOCK_OPS_TIMEOUT_INIT is asked for when a request socket is made (tcp_conn_request()). So this sees SYNs
 * only, never stray segments; and no SYN that is answered with a cookie because the listener's queue is full: a flood
 * switches it off.
 *
 * Laws: nothing is changed; no program of another owner loses its answer (`reply` stays as it is).
 */
#include "kernel_types.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "targets.h"

char LICENSE[] SEC("license") = "GPL";

struct syn {
	struct end client;
	struct end local;
	u32 family;
	u32 target;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} syns SEC(".maps");

/* SYNs that found the ring full: their clients are served all the same. */
u64 missed = 0;

SEC("sockops")
int syn_arrived(struct bpf_sock_ops *ops)
{
	struct syn syn = {};
	int target;

	/* The same question is asked for connections that this host begins: these are full sockets already. */
	if (ops->op != BPF_SOCK_OPS_TIMEOUT_INIT || ops->is_fullsock || bpf_get_netns_cookie(ops) != settings.netns)
		return 1;
	syn.family = ops->family;
	syn.local.port = ops->local_port;
	syn.client.port = bpf_ntohl(ops->remote_port);
	if (syn.family == AF_INET) {
		map_ipv4(syn.local.address, ops->local_ip4);
		map_ipv4(syn.client.address, ops->remote_ip4);
	} else if (syn.family == AF_INET6) {
		syn.local.address[0] = ops->local_ip6[0];
		syn.local.address[1] = ops->local_ip6[1];
		syn.local.address[2] = ops->local_ip6[2];
		syn.local.address[3] = ops->local_ip6[3];
		syn.client.address[0] = ops->remote_ip6[0];
		syn.client.address[1] = ops->remote_ip6[1];
		syn.client.address[2] = ops->remote_ip6[2];
		syn.client.address[3] = ops->remote_ip6[3];
	}
	target = find_target(syn.family, &syn.local, 0);
	if (target < 0 || worker_of(&syn.client) != settings.worker)
		return 1;
	syn.target = target;
	if (bpf_ringbuf_output(&syns, &syn, sizeof(syn), 0))
		__sync_fetch_and_add(&missed, 1);
	return 1;
}
