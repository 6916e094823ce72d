/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The records of sockets: made with a socket's first segment, found by its address, given the owner's name. */
#ifndef ACKWARD_TRACE_SOCKETS_H
#define ACKWARD_TRACE_SOCKETS_H

#include "trace_state.h"

static __always_inline struct traced_socket *admit(u64 key, struct __sk_buff *skb, struct tcp_sock *tp,
						   const struct segment *segment, bool sent)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct net *net = sk->__sk_common.skc_net.net;
	struct traced_socket *socket;
	u32 zero = 0, payload;

	socket = bpf_map_lookup_elem(&blank, &zero);
	if (!socket || bpf_map_update_elem(&sockets, &key, socket, BPF_ANY)) {
		__sync_fetch_and_add(&totals.refused, 1);
		return 0;
	}
	socket = bpf_map_lookup_elem(&sockets, &key);
	if (!socket)
		return 0;
	IDENTITY(&socket->end, sk, BPF_CORE_READ);
	socket->end.netns = net->ns.inum;
	socket->end.cgroup_id = bpf_skb_cgroup_id(skb);
	if (bpf_core_field_exists(net->ipv4.sysctl_tcp_pingpong_thresh))
		socket->end.pingpong_threshold = net->ipv4.sysctl_tcp_pingpong_thresh;
	/* Where the numbers began. Bytes that leave now for the first time are in bytes_sent, not in snd_nxt. */
	payload = tp->bytes_sent - tp->bytes_retrans;
	if (sent && segment->seq == tp->snd_nxt)
		payload -= segment->bytes;
	socket->end.first_sent = tp->snd_nxt - payload - 1;
	if (sent && segment->flags & SYN)
		socket->end.first_sent = segment->seq;
	socket->end.first_received = tp->rcv_nxt - (u32)tp->bytes_received - 1;
	if (!sent && segment->flags & SYN)
		socket->end.first_received = segment->seq;
	socket->received_end = tp->rcv_nxt;
	socket->flow = __sync_fetch_and_add(&totals.flows, 1) + 1;
	MODE(&socket->mode, tp, DIRECT, DIRECT_BITS);
	return socket;
}

/* The record of a segment's socket, made if there is none; null if the segment is not to be traced. */
static __always_inline struct traced_socket *record_of(struct __sk_buff *skb, struct tcp_sock *tp,
						       struct segment *segment, bool sent)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct traced_socket *socket;
	u64 key = (u64)(long)tp;

	if (!parse(skb, segment)) {
		__sync_fetch_and_add(&totals.unparsed, 1);
		return 0;
	}
	if (segment->flags & RST)
		return 0; /* its socket is closed, or closes now: a record made here would stay for ever */
	socket = bpf_map_lookup_elem(&sockets, &key);
	if (socket && socket->end.local_port == sk->__sk_common.skc_num &&
	    socket->end.remote_port == bpf_ntohs(sk->__sk_common.skc_dport))
		return socket;
	return admit(key, skb, tp, segment, sent); /* a new socket, or the address of a closed one, used again */
}

static __always_inline struct traced_socket *known(struct tcp_sock *tp)
{
	u64 key = (u64)(long)tp;

	return bpf_map_lookup_elem(&sockets, &key);
}

static __always_inline void learn_owner(struct traced_socket *socket)
{
	if (socket->owner_known)
		return;
	socket->owner_known = 1;
	socket->end.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(socket->end.command, sizeof(socket->end.command));
}

#endif
