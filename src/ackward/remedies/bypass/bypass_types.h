/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The kernel's fields that the bypass reads beyond those of the shared header. The loader ignores what stands behind
 * three underscores and relocates each access against the running kernel.
 */
#ifndef ACKWARD_BYPASS_TYPES_H
#define ACKWARD_BYPASS_TYPES_H

#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net___bypass {
	u64 net_cookie;
};

struct sk_buff_head___bypass {
	u32 qlen;
};

/* net/core/skmsg.c. msg_tot_len: bytes in ingress_msg, whether they were redirected or came over TCP. */
struct sk_psock___bypass {
	struct sk_buff_head___bypass ingress_skb;
	u32 msg_tot_len;
};

struct sk_buff___bypass {
	char cb[48];
};

/* Stands for any word of the kernel's: programs may look at structs only. */
struct hlist_head___bypass {
	struct sk_buff_head___bypass *first;
};

struct file___bypass {
	unsigned int f_flags;
};

struct socket___bypass {
	struct file___bypass *file;
};

typedef struct {
	u64 counter;
} atomic64_t___bypass;

struct sock___bypass;

/* include/linux/page_counter.h: in pages. An unlimited one has a `max` that no machine has. */
struct page_counter___bypass {
	struct {
		long counter;
	} usage;
	unsigned long max;
	struct page_counter___bypass *parent;
};

/* tcpmem: of cgroup v1, where sockets have a limit of their own or none. */
struct mem_cgroup___bypass {
	struct page_counter___bypass memory;
	struct page_counter___bypass tcpmem;
	bool tcpmem_active;
};

struct proto___bypass {
	unsigned long *memory_pressure;
};

struct sock_common___bypass {
	volatile u8 skc_state;
	struct proto___bypass *skc_prot;
	possible_net_t skc_net;
	atomic64_t___bypass skc_cookie;
	union {
		unsigned long skc_flags;
		struct sock___bypass *skc_listener;
	};
};

struct sock___bypass {
	struct sock_common___bypass __sk_common;
	int sk_peek_off;
	struct sk_buff_head___bypass sk_receive_queue;
	int sk_rcvlowat;
	struct socket___bypass *sk_socket;
	int sk_err;
	u8 sk_shutdown;
	void *sk_user_data;
	void *sk_memcg; /* none: of the root, which has no limit */
};

/* The request socks of a server that has seen a SYN: no socket yet. */
struct tcp_request_sock___bypass {
	bool is_mptcp;
	u32 rcv_isn;
	u32 snt_isn;
};

struct request_sock_queue___bypass {
	u8 rskq_defer_accept;
};

struct inet_connection_sock___bypass {
	struct request_sock_queue___bypass icsk_accept_queue;
	const void *icsk_ulp_ops;
};

struct tcp_sock___bypass {
	u32 max_window;
	u32 data_segs_out;
	u32 data_segs_in;
	u8 recvmsg_inq : 1;
	u8 syn_data : 1;
	u8 syn_fastopen : 1;
	u8 syn_fastopen_child : 1;
	void *fastopen_rsk;
};

/* What stands behind struct bpf_sock_ops. */
struct bpf_sock_ops_kern___bypass {
	struct sock *sk;
};

#pragma clang attribute pop

enum sock_flags___bypass { SOCK_ZEROCOPY___bypass = 1 };

#endif
