/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * A TCP segment at a socket, as the recorder and the trace both read it: which socket, which sequence numbers, which
 * state beside it.
 */
#ifndef ACKWARD_TCP_SEGMENT_H
#define ACKWARD_TCP_SEGMENT_H

#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PASS 1 /* a cgroup_skb program's only answer: anything else would cut the host off */
#define AF_INET 2
#define AF_INET6 10
#define TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define IPPROTO_TCP 6
#define FIN 1 /* RFC 9293 section 3.1 */
#define SYN 2
#define ACK 16
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_SACK 5 /* RFC 2018 section 3 */
#define OPTIONS_LONGEST 40
#define HEADERS_LONGEST 120 /* IP and TCP, each with all options */
#define ALIGNED_TIMES 0x0101080A /* two no-operations and a timestamp (RFC 7323 appendix A): mostly that is all */

enum kind { SENT = 1, RECEIVED = 2, WRITE_HELD = 3, ACK_TIMER = 4, ESTABLISHED = 5, CLOSED = 6 };

/* One thing that happened at one socket, with the socket's state beside it. */
struct segment_event {
	u64 time_ns; /* CLOCK_MONOTONIC */
	u32 flow;
	u32 seq;
	u32 ack;
	u32 bytes; /* payload; for WRITE_HELD the bytes written but not sent */
	u32 write_seq;
	u32 snd_nxt;
	u32 snd_una;
	u32 srtt_us;
	u32 min_rtt_us;
	u32 peer_window;
	u32 window; /* as the segment says, in bytes */
	u32 sack_left; /* the first SACK block; both 0 without one */
	u32 sack_right;
	u16 cwnd;
	u16 in_flight; /* segments */
	u16 segments;  /* on the wire, if this one is split or merged by offload */
	u16 mss;
	u8 kind;
	u8 tcp_flags;
	u8 nonagle;
	u8 quick;
	u8 pingpong;
	u8 ack_pending;
	u8 ato; /* jiffies */
	u8 ca_state;
	u8 dsack; /* that block tells of a duplicate (RFC 2883) */
};

static __always_inline bool before(u32 a, u32 b)
{
	return (__s32)(a - b) < 0;
}

static __always_inline bool in_scope(u32 wanted_netns, u16 wanted_port, u32 netns, u16 local, u16 remote)
{
	if (wanted_port && local != wanted_port && remote != wanted_port)
		return false;
	return !wanted_netns || netns == wanted_netns;
}

/* The connection of a packet at a cgroup_skb hook, if it is one and in scope (0: any); else null. */
static __always_inline struct tcp_sock *socket_in_scope(struct __sk_buff *skb, u32 netns, u16 port)
{
	struct bpf_sock *bpf_sk = skb->sk;
	struct tcp_sock *tp;
	struct sock *sk;
	u8 state;

	if (!bpf_sk)
		return 0;
	/* Most packets of a busy host are not ours: two loads turn them away before any helper is called. */
	if (port && bpf_sk->src_port != port && bpf_sk->dst_port != bpf_htons(port))
		return 0;
	tp = bpf_skc_to_tcp_sock(bpf_sk);
	if (!tp)
		return 0;
	sk = &tp->inet_conn.icsk_inet.sk;
	if (!in_scope(netns, port, sk->__sk_common.skc_net.net->ns.inum, sk->__sk_common.skc_num,
		      bpf_ntohs(sk->__sk_common.skc_dport)))
		return 0;
	state = sk->__sk_common.skc_state;
	return state == TCP_LISTEN || state == TCP_CLOSE ? 0 : tp;
}

/* What both ways of reading a socket (direct through BTF, and probed) fill in alike. */
#define STATE(event, tp, GET, GET_BITS)                                   \
	do {                                                              \
		(event)->write_seq = GET(tp, write_seq);                  \
		(event)->snd_nxt = GET(tp, snd_nxt);                      \
		(event)->snd_una = GET(tp, snd_una);                      \
		(event)->srtt_us = GET(tp, srtt_us) >> 3;                 \
		(event)->min_rtt_us = GET(tp, rtt_min.s[0].v);            \
		(event)->peer_window = GET(tp, snd_wnd);                  \
		(event)->cwnd = GET(tp, snd_cwnd);                        \
		(event)->in_flight = GET(tp, packets_out);                \
		(event)->mss = GET(tp, mss_cache);                        \
		(event)->nonagle = GET_BITS(tp, nonagle);                 \
		(event)->quick = GET(tp, inet_conn.icsk_ack.quick);       \
		(event)->pingpong = GET(tp, inet_conn.icsk_ack.pingpong); \
		(event)->ack_pending = GET(tp, inet_conn.icsk_ack.pending); \
		(event)->ato = GET_BITS(tp, inet_conn.icsk_ack.ato);      \
		(event)->ca_state = GET_BITS(tp, inet_conn.icsk_ca_state); \
	} while (0)

#define DIRECT(tp, field) ((tp)->field)
#define DIRECT_BITS(tp, field) BPF_CORE_READ_BITFIELD(tp, field)
#define PROBED(tp, field) BPF_CORE_READ(tp, field)
#define PROBED_BITS(tp, field) BPF_CORE_READ_BITFIELD_PROBED(tp, field)

#define IDENTITY(who, sk, READ)                                                                   \
	do {                                                                                      \
		(who)->family = READ(sk, __sk_common.skc_family);                                 \
		(who)->local_port = READ(sk, __sk_common.skc_num);                                \
		(who)->remote_port = bpf_ntohs(READ(sk, __sk_common.skc_dport));                  \
		if ((who)->family == AF_INET) {                                                   \
			*(u32 *)(who)->local_address = READ(sk, __sk_common.skc_rcv_saddr);       \
			*(u32 *)(who)->remote_address = READ(sk, __sk_common.skc_daddr);          \
		} else {                                                                          \
			BPF_CORE_READ_INTO(&(who)->local_address, sk, __sk_common.skc_v6_rcv_saddr); \
			BPF_CORE_READ_INTO(&(who)->remote_address, sk, __sk_common.skc_v6_daddr); \
		}                                                                                 \
	} while (0)

struct segment {
	u32 seq, ack, bytes, window, sack_left, sack_right;
	u8 flags;
	u8 dsack;
};

/* Where a packet's SACK option begins; 0 if none lies between two offsets. Not static: so it is verified once, by
 * itself, and not with each path that leads on from here. Weak: the compiler must not rely on what the verifier cannot
 * see. */
__weak __noinline u32 find_sack(struct __sk_buff *skb, u32 at, u32 beyond)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;

	for (int i = 0; i < OPTIONS_LONGEST; i++) {
		u8 *option = data + at;

		if (at > HEADERS_LONGEST || at + 2 > beyond || option + 2 > end || option[0] == OPTION_END)
			return 0;
		if (option[0] == OPTION_SACK)
			return at;
		if (option[0] != OPTION_NOP && !option[1])
			return 0;
		at += option[0] == OPTION_NOP ? 1 : option[1];
	}
	return 0;
}

/* The first SACK block, and whether it is a D-SACK: it lies below the acknowledgement number, or within the second
 * block (RFC 2883 section 4). */
static __always_inline void parse_sack(struct __sk_buff *skb, u32 at, struct segment *segment)
{
	u8 *end = (u8 *)(long)skb->data_end, *option = (u8 *)(long)skb->data + at;
	u32 *block = (u32 *)(option + 2);

	if (!at || at > HEADERS_LONGEST || option + 10 > end || option[1] < 10)
		return;
	segment->sack_left = bpf_ntohl(block[0]);
	segment->sack_right = bpf_ntohl(block[1]);
	segment->dsack = before(segment->sack_left, segment->ack);
	if (option[1] >= 18 && option + 18 <= end)
		segment->dsack |= !before(segment->sack_left, bpf_ntohl(block[2])) &&
				  !before(bpf_ntohl(block[3]), segment->sack_right);
}

/* What the packet itself says; false if it is not plain TCP. The window is as sent. */
static __always_inline bool parse(struct __sk_buff *skb, struct segment *segment)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	u32 offset, length;

	if (data + 20 > end)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data[9] != IPPROTO_TCP)
			return false;
		offset = (data[0] & 0xf) * 4;
	} else {
		if (data + 40 > end || data[6] != IPPROTO_TCP)
			return false; /* extension headers: counted as unparsed */
		offset = 40;
	}
	if (offset > 60)
		return false;
	data += offset;
	if (data + 20 > end)
		return false;
	segment->seq = bpf_ntohl(*(u32 *)(data + 4));
	segment->ack = bpf_ntohl(*(u32 *)(data + 8));
	segment->flags = data[13];
	segment->window = bpf_ntohs(*(u16 *)(data + 14));
	length = (data[12] >> 4) * 4;
	/* The length field is 0 in packets over 64 kB: trust the buffer. */
	segment->bytes = skb->len - offset - length;
	segment->sack_left = segment->sack_right = 0;
	segment->dsack = 0;
	if (length > 20 && !(length == 32 && data + 24 <= end && *(u32 *)(data + 20) == bpf_htonl(ALIGNED_TIMES)))
		parse_sack(skb, find_sack(skb, offset + 20, offset + length), segment);
	return true;
}

/* A segment at a cgroup_skb hook, with the socket's state beside it. */
static __always_inline void describe_segment(struct segment_event *event, struct __sk_buff *skb, struct tcp_sock *tp,
					     const struct segment *segment, u8 kind)
{
	event->kind = kind;
	event->seq = segment->seq;
	event->ack = segment->ack;
	event->bytes = segment->bytes;
	event->tcp_flags = segment->flags;
	event->segments = skb->gso_segs ?: 1;
	event->window = segment->window;
	if (!(segment->flags & SYN)) /* RFC 7323 section 2.2: the window of a SYN is never scaled */
		event->window <<= kind == SENT ? DIRECT_BITS(tp, rx_opt.rcv_wscale) : DIRECT_BITS(tp, rx_opt.snd_wscale);
	event->sack_left = segment->sack_left;
	event->sack_right = segment->sack_right;
	event->dsack = segment->dsack;
	STATE(event, tp, DIRECT, DIRECT_BITS);
}

/* Something else than a segment, at a raw tracepoint: there a socket is only an address and every read is probed. */
static __always_inline void describe_moment(struct segment_event *event, struct tcp_sock *tp, u8 kind)
{
	event->kind = kind;
	event->tcp_flags = 0;
	event->segments = 0;
	event->window = event->sack_left = event->sack_right = 0;
	event->dsack = 0;
	STATE(event, tp, PROBED, PROBED_BITS);
	event->seq = event->snd_nxt;
	event->ack = BPF_CORE_READ(tp, rcv_nxt);
	event->bytes = event->write_seq - event->snd_nxt;
}

#endif
