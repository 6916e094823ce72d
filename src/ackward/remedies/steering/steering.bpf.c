/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Sets one option on each TCP connection of a scope when it is established, and notes what it was before.
 *
 * The notes are in socket storage: they live and die with their socket, so there is no table that could fill up or
 * outlive what it speaks of. User space reads and writes them through a descriptor of the socket: it enters a note
 * before it sets the option on a connection that was open already, and undoes by them.
 *
 * Laws
 *  - A socket is noted if and only if its option is as it is because of us. A program that sets the option itself,
 *    before us or after, has spoken: its socket is not noted (any more), and undo leaves it alone. Of an option of
 *    which only some bits are ours (the mark) it has not if it leaves them as we set them: it means the others.
 *  - Nothing but that option is changed; no program of another owner in the same cgroup loses its answer (`reply`
 *    and the option's value stay as they are).
 *  - Every path lets the call go on: 0 would fail the program's socket() or setsockopt() with EPERM.
 */
#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define AF_INET 2
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
/* /proc/PID/stat tells start times in ticks of USER_HZ, 100 a second on every architecture that has BPF. */
#define TICK_NS 10000000

/* Parts that the remedies' shared header has no use for; the loader ignores what stands behind three underscores. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net___cookie {
	u64 net_cookie;
};
struct task_struct___life {
	int tgid;
	u64 start_boottime;
	struct task_struct___life *group_leader;
};
#pragma clang attribute pop

struct scope {
	u64 netns;      /* its cookie, which is never given to another namespace: this may outlive it */
	u64 start_time; /* of the process, in ticks since boot: tells a PID that was given out again */
	u32 process;    /* tgid; 0: any */
	u32 family;     /* of the remote address: 4, 6, 0: any */
	u32 network[4]; /* in network order; IPv4 as ::ffff:0:0/96 */
	u32 network_mask[4];
	u32 level;
	u32 option;      /* as bpf_setsockopt() numbers it */
	u32 user_option; /* as setsockopt(2) does */
	u32 mask;        /* the bits that are set, all or one */
	u32 value;
	u32 at_most; /* a value that is lower already is left alone */
	u16 first_port, last_port; /* local or remote */
	u32 noted_open; /* user space is through with the connections that were open */
};

struct counters {
	u64 seen;      /* connections of the scope established since */
	u64 set;       /* ... on which the option was set */
	u64 already;   /* ... which had it (inherited from a listener whose program set it) */
	u64 failed;    /* ... where the kernel refused */
	u64 overruled; /* sockets of ours whose program then set the option itself */
};

struct note {
	u32 before;
	u32 entering; /* user space is about to set the option: that call is not the program's */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scope);
} scope_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counters);
} counters_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct note);
} notes SEC(".maps");

/* The sockets of one process. What a listener accepts inherits its membership. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, u32);
} members SEC(".maps");

static const u32 zero;

/* Each field of the context by a load of its own: a compiler that picks the offset first is refused by the verifier. */
#define LOAD(field) (*(volatile u32 *)&(field))

static __always_inline bool in_network(const struct scope *scope, struct bpf_sock_ops *ops)
{
	u32 address[4] = { LOAD(ops->remote_ip6[0]), LOAD(ops->remote_ip6[1]), LOAD(ops->remote_ip6[2]),
			   LOAD(ops->remote_ip6[3]) };
	u32 ipv4 = LOAD(ops->remote_ip4);
	u32 family;

	if (!scope->family)
		return true;
	if (ops->family == AF_INET) {
		address[0] = address[1] = 0;
		address[2] = bpf_htonl(0xffff);
		address[3] = ipv4;
	}
	family = address[0] || address[1] || address[2] != bpf_htonl(0xffff) ? 6 : 4;
	if (family != scope->family)
		return false;
	for (int i = 0; i < 4; i++)
		if ((address[i] ^ scope->network[i]) & scope->network_mask[i])
			return false;
	return true;
}

static __always_inline bool in_ports(const struct scope *scope, u32 port)
{
	return port >= scope->first_port && port <= scope->last_port;
}

static __always_inline bool in_scope(const struct scope *scope, struct bpf_sock_ops *ops, struct bpf_sock *bpf_sk)
{
	struct tcp_sock *tp;

	if (!in_ports(scope, ops->local_port) && !in_ports(scope, bpf_ntohl(ops->remote_port)))
		return false;
	if (!in_network(scope, ops))
		return false;
	tp = bpf_skc_to_tcp_sock(bpf_sk);
	if (!tp)
		return false;
	if (((struct net___cookie *)tp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net)->net_cookie != scope->netns)
		return false;
	return !scope->process || bpf_sk_storage_get(&members, bpf_sk, 0, 0);
}

static __always_inline void count(u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline void steer(const struct scope *scope, struct counters *counters, struct bpf_sock_ops *ops,
				  struct bpf_sock *bpf_sk)
{
	struct note note = {};
	u32 before = 0, after;

	if (bpf_getsockopt(ops, scope->level, scope->option, &before, sizeof(before))) {
		count(&counters->failed);
		return;
	}
	after = (before & ~scope->mask) | (scope->value & scope->mask);
	if (after == before || (scope->at_most && before <= scope->value)) {
		count(&counters->already);
		return;
	}
	note.before = before;
	if (!bpf_sk_storage_get(&notes, bpf_sk, &note, BPF_SK_STORAGE_GET_F_CREATE)) {
		count(&counters->failed);
		return;
	}
	if (bpf_setsockopt(ops, scope->level, scope->option, &after, sizeof(after))) {
		bpf_sk_storage_delete(&notes, bpf_sk);
		count(&counters->failed);
		return;
	}
	count(&counters->set);
}

SEC("sockops")
int established(struct bpf_sock_ops *ops)
{
	struct counters *counters;
	struct bpf_sock *bpf_sk;
	struct scope *scope;

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	scope = bpf_map_lookup_elem(&scope_map, &zero);
	counters = bpf_map_lookup_elem(&counters_map, &zero);
	bpf_sk = ops->sk;
	if (!scope || !counters || !bpf_sk || !in_scope(scope, ops, bpf_sk))
		return 1;
	count(&counters->seen);
	steer(scope, counters, ops, bpf_sk);
	return 1;
}

/* Whether the program sets the option's other bits alone. */
static __always_inline bool keeps_ours(const struct scope *scope, const struct bpf_sockopt *call)
{
	u32 *value = call->optval;

	return scope->mask != ~0U && (void *)(value + 1) <= call->optval_end && !((*value ^ scope->value) & scope->mask);
}

SEC("cgroup/setsockopt")
int program_sets(struct bpf_sockopt *call)
{
	struct scope *scope = bpf_map_lookup_elem(&scope_map, &zero);
	struct bpf_sock *bpf_sk = call->sk;
	struct note *note;

	if (scope && bpf_sk && call->level == (int)scope->level && call->optname == (int)scope->user_option) {
		note = bpf_sk_storage_get(&notes, bpf_sk, 0, 0);
		if (note && !note->entering && !keeps_ours(scope, call)) {
			struct counters *counters = bpf_map_lookup_elem(&counters_map, &zero);

			bpf_sk_storage_delete(&notes, bpf_sk);
			if (counters)
				count(&counters->overruled);
		}
	}
	/* Larger than what the kernel copied for us (a page): 0 lets it take the program's own buffer, else it is EFAULT
	 * (Documentation/bpf/prog_cgroup_sockopt.rst). */
	if ((long)call->optval_end - (long)call->optval < call->optlen)
		call->optlen = 0;
	return 1;
}

SEC("cgroup/sock_create")
int created(struct bpf_sock *bpf_sk)
{
	struct scope *scope = bpf_map_lookup_elem(&scope_map, &zero);
	struct task_struct___life *task;
	u32 member = 1;

	if (!scope || bpf_sk->type != SOCK_STREAM || bpf_sk->protocol != IPPROTO_TCP)
		return 1;
	task = (void *)bpf_get_current_task();
	if (BPF_CORE_READ(task, tgid) == (int)scope->process &&
	    BPF_CORE_READ(task, group_leader, start_boottime) / TICK_NS == scope->start_time)
		bpf_sk_storage_get(&members, bpf_sk, &member, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}
