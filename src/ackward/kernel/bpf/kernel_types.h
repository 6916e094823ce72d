/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Just the kernel fields that our programs read. Offsets here mean nothing: preserve_access_index makes the
 * loader relocate every access against the running kernel's BTF (CO-RE), so a build needs no BTF at all.
 */
#ifndef ACKWARD_KERNEL_TYPES_H
#define ACKWARD_KERNEL_TYPES_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	u32 inum;
};

struct netns_ipv4 {
	u8 sysctl_tcp_pingpong_thresh;
};

struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	u32 skc_portpair; /* skc_dport, then skc_num: one read for both */
	__be16 skc_dport;
	u16 skc_num;
	u16 skc_family;
	volatile u8 skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	unsigned long sk_tsq_flags;
};

enum tsq_enum { TCP_WRITE_TIMER_DEFERRED, TCP_DELACK_TIMER_DEFERRED };

struct inet_sock {
	struct sock sk;
};

struct hlist_node {
	struct hlist_node **pprev;
};

struct timer_list {
	struct hlist_node entry;
	unsigned long expires;
	void (*function)(struct timer_list *timer);
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct timer_list icsk_retransmit_timer;
	struct timer_list icsk_delack_timer;
	u8 icsk_ca_state : 5;
	u8 icsk_pending;
	u32 icsk_probes_tstamp;
	struct {
		u8 pending;
		u8 quick;
		u8 pingpong;
		u32 ato : 8;
		u32 dst_quick_ack : 1;
	} icsk_ack;
};

struct minmax_sample {
	u32 t;
	u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

struct tcp_options_received {
	u16 snd_wscale : 4;
	u16 rcv_wscale : 4;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	struct tcp_options_received rx_opt;
	u32 snd_wnd;
	u32 mss_cache;
	u32 snd_cwnd;
	u32 write_seq;
	u32 snd_nxt;
	u32 snd_una;
	u32 rcv_nxt;
	u32 rcv_wup;
	u32 rcv_wnd;
	u64 bytes_sent;
	u64 bytes_retrans;
	u64 bytes_received;
	u32 srtt_us;
	u32 packets_out;
	struct minmax rtt_min;
	u8 nonagle : 4;
	bool is_mptcp;
};

#pragma clang attribute pop

#endif
