/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The live recorder: what each TCP socket last sent, received and held back, kept in the kernel.
 *
 * Each watched socket has one record with a ring of its events. A record leaves the kernel only if its exchange
 * was slow (or too long for the ring); a fast exchange only adds to its flow's counters. Every event of a slow
 * exchange goes to user space as one fixed-size `struct segment_event`, so that a drained buffer is an array.
 *
 * Laws
 *  - Every path of a cgroup_skb program returns PASS: anything else would cut the host off.
 *  - No program changes a socket or a packet.
 *  - If the buffer is full, whole flows are shed (by hash, both ends alike) and marked; nothing is half kept.
 *
 * cgroup_skb/ingress runs before the socket is locked, so it can meet egress of the same socket on another CPU.
 * Slots are taken atomically; the exchange's phase is not, because request and answer of one exchange cannot be in
 * both hooks at once: the answer is caused by the request.
 */
#include "cgroup.h"
#include "segments_state.h"

char LICENSE[] SEC("license") = "GPL";

static __always_inline u8 fold(u32 x)
{
	x ^= x >> 16;
	return x ^ x >> 8;
}

static __always_inline void lose(struct socket_record *record)
{
	struct flow_record *flow = bpf_map_lookup_elem(&flows, &record->flow);

	record->lost = 1;
	if (flow)
		flow->lost = 1;
	if (totals.shed < 256)
		totals.shed += 32;
}

static __always_inline void flush(struct socket_record *record)
{
	u32 count = record->count;

	if (record->hash < totals.shed && !record->lost)
		lose(record);
	if (!record->lost) {
		for (u32 i = 0; i < RING; i++) {
			if (i >= count)
				break;
			/* User space polls: waking it up per event would cost more than the event. */
			if (bpf_ringbuf_output(&events, &record->ring[i], sizeof(struct segment_event),
					       BPF_RB_NO_WAKEUP)) {
				lose(record);
				break;
			}
		}
	}
	record->count = 0;
}

static __always_inline void spill(struct socket_record *record)
{
	if (record->hash < totals.shed && !record->lost)
		lose(record);
	if (!record->lost && bpf_ringbuf_output(&batches, record->ring, sizeof(record->ring), BPF_RB_NO_WAKEUP))
		lose(record);
}

static __always_inline void finish(struct socket_record *record)
{
	u64 end = record->last_response_ns ?: record->last_request_ns;
	struct flow_record *flow = bpf_map_lookup_elem(&flows, &record->flow);

	if (flow) {
		flow->bytes_sent += record->bytes_sent;
		flow->bytes_received += record->bytes_received;
		record->bytes_sent = record->bytes_received = 0;
	}
	if (record->spilled || (end > record->start_ns && end - record->start_ns >= settings.slow_ns)) {
		flush(record);
	} else if (flow && end > record->start_ns) {
		u64 request = record->start_ns;
		u64 last_request = record->last_request_ns ?: request;
		u64 response = record->first_response_ns ?: end;

		if (record->established_ns > request) {
			flow->handshake_ns += record->established_ns - request;
			request = record->established_ns;
		}
		/* Pipelined requests overlap their answers: keep the three parts a partition all the same. */
		if (response < request)
			response = request;
		if (last_request < request)
			last_request = request;
		if (last_request > response)
			last_request = response;
		flow->exchanges++;
		flow->request_ns += last_request - request;
		flow->wait_ns += response - last_request;
		flow->response_ns += end - response;
	}
	record->count = 0;
	record->spilled = 0;
	record->phase = REQUEST;
	record->established_ns = 0;
	record->last_request_ns = 0;
	record->first_response_ns = 0;
	record->last_response_ns = 0;
}

static __always_inline struct segment_event *append(struct socket_record *record, u64 now)
{
	struct segment_event *event;
	u32 slot = __sync_fetch_and_add(&record->count, 1);

	if (slot >= RING) {
		spill(record);
		record->spilled = 1;
		record->count = 1;
		slot = 0;
	}
	event = &record->ring[slot & (RING - 1)];
	event->time_ns = now;
	event->flow = record->flow;
	return event;
}

static __always_inline bool listens(u32 netns, u16 port)
{
	struct listener end = { .netns = netns, .port = port };

	return bpf_map_lookup_elem(&listeners, &end);
}

static __always_inline bool is_ephemeral(u16 port)
{
	return port >= settings.first_ephemeral && port <= settings.last_ephemeral;
}

/*
 * Whether this end of a connection whose handshake was not seen is the server: the one that listens, else the one whose
 * port no client is given, else that of the lower port. The other end is asked by itself and has to come out opposite.
 */
static __always_inline bool serves(struct flow_record *who)
{
	u16 local = who->local_port, remote = who->remote_port;
	/* The namespace of the other end is not known: where that misleads, diagnosis/flows.py settles it. */
	bool here = listens(who->netns, local), there = listens(0, remote);

	if (here != there)
		return here;
	if (is_ephemeral(local) != is_ephemeral(remote))
		return is_ephemeral(remote);
	if (local != remote)
		return local < remote;
	for (u32 word = 0; word < 4; word++) {
		u32 ours = ((u32 *)who->local_address)[word], theirs = ((u32 *)who->remote_address)[word];

		if (ours != theirs)
			return ours < theirs;
	}
	return false;
}

/* A new record; the caller has the socket's facts, read in whatever way its hook allows. */
static __always_inline struct socket_record *admit(u64 key, struct flow_record *who, u64 now)
{
	u32 zero = 0;
	u32 id = __sync_fetch_and_add(&totals.flows, 1) + 1;
	struct socket_record *record = bpf_map_lookup_elem(&blank, &zero);

	if (!record)
		return 0;
	if (who->role == ROLE_UNKNOWN)
		who->role = serves(who) ? ROLE_SERVER : ROLE_CLIENT;
	who->born_ns = now;
	who->hash = fold(*(u32 *)who->local_address ^ *(u32 *)who->remote_address ^
			 *(u32 *)(who->local_address + 12) ^ *(u32 *)(who->remote_address + 12) ^
			 who->local_port ^ who->remote_port);
	/* Filled in where it is stored, not before: a softirq may admit another socket at any moment. */
	if (bpf_map_update_elem(&flows, &id, who, BPF_ANY) ||
	    bpf_map_update_elem(&sockets, &key, record, BPF_ANY)) {
		__sync_fetch_and_add(&totals.refused, 1);
		return 0;
	}
	record = bpf_map_lookup_elem(&sockets, &key);
	if (!record)
		return 0;
	record->flow = id;
	record->role = who->role;
	record->hash = who->hash;
	record->ports = (u32)who->local_port << 16 | who->remote_port;
	record->start_ns = now;
	return record;
}

/* Moves the exchange's phase for one segment, and begins a new exchange where one begins. */
static __always_inline void advance(struct socket_record *record, struct tcp_sock *tp, struct segment *segment,
				    bool sent, u64 now)
{
	bool request = sent == (record->role == ROLE_CLIENT);
	u32 end = segment->seq + segment->bytes;
	u32 *edge = sent ? &record->sent_end : &record->received_end;
	bool fresh = segment->bytes && (!*edge || before(*edge, end));

	if (!fresh)
		return;
	if (request) {
		/* Nothing outstanding: what we sent before is acknowledged, what the peer sent before too. */
		bool quiet = sent ? tp->snd_una == segment->seq : segment->ack == tp->snd_nxt;

		if (record->phase == RESPONSE && quiet) {
			finish(record);
			record->start_ns = now;
		}
		record->phase = REQUEST;
		record->last_request_ns = now;
	} else {
		record->phase = RESPONSE;
		if (!record->first_response_ns)
			record->first_response_ns = now;
		record->last_response_ns = now;
	}
	*(sent ? &record->bytes_sent : &record->bytes_received) += *edge ? end - *edge : segment->bytes;
	*edge = end;
}

static __always_inline void segment_seen(struct __sk_buff *skb, u8 kind)
{
	struct tcp_sock *tp = socket_in_scope(skb, settings.netns, settings.port);
	struct sock *sk;
	struct socket_record *record;
	struct segment_event *event;
	struct segment segment;
	u16 local, remote;
	u64 key, now;

	if (!tp)
		return;
	if (!parse(skb, &segment)) {
		__sync_fetch_and_add(&totals.unparsed, 1);
		return;
	}
	sk = &tp->inet_conn.icsk_inet.sk;
	local = sk->__sk_common.skc_num;
	remote = bpf_ntohs(sk->__sk_common.skc_dport);
	now = bpf_ktime_get_ns();
	key = (u64)(long)tp;
	record = bpf_map_lookup_elem(&sockets, &key);
	if (record && record->ports != ((u32)local << 16 | remote))
		record = 0; /* the address of a closed socket, used again */
	if (!record) {
		struct flow_record who = { .netns = sk->__sk_common.skc_net.net->ns.inum };

		IDENTITY(&who, sk, BPF_CORE_READ);
		who.cgroup_id = bpf_skb_cgroup_id(skb);
		if (sk->__sk_common.skc_state == TCP_SYN_SENT) {
			who.role = ROLE_CLIENT;
			who.role_seen = 1;
		}
		if (bpf_core_field_exists(tp->is_mptcp))
			who.mptcp = tp->is_mptcp;
		record = admit(key, &who, now);
		if (!record)
			return;
	}
	advance(record, tp, &segment, kind == SENT, now);
	if (kind == RECEIVED && (segment.bytes || segment.flags & FIN))
		data_arrives(tp, &record->unacknowledged);
	/* A moment before its segment: what fills a ring leaves in another buffer than what follows. */
	if (kind == SENT && segment.flags & ACK && sent_by_ack_timer(tp, &segment, &record->unacknowledged))
		describe_segment(append(record, now - 1), skb, tp, &segment, ACK_TIMER);
	event = append(record, now);
	describe_segment(event, skb, tp, &segment, kind);
	if (kind == SENT && event->write_seq == segment.seq + segment.bytes)
		record->held = 0;
	totals.segments++;
}

SEC("cgroup_skb/egress")
int sent(struct __sk_buff *skb)
{
	segment_seen(skb, SENT);
	return PASS;
}

SEC("cgroup_skb/ingress")
int received(struct __sk_buff *skb)
{
	segment_seen(skb, RECEIVED);
	return PASS;
}

/* From here on: raw tracepoints. */

static __always_inline void note(struct socket_record *record, struct tcp_sock *tp, u8 kind, u64 now)
{
	describe_moment(append(record, now), tp, kind);
}

/* A hold begins with the first write that was held; Nagle's algorithm gathers more of them, and the segment that leaves
 * is as old as the last. So of small ones these two are kept, however many come in between: of them what changed. */
static __always_inline void hold(struct socket_record *record, struct tcp_sock *tp, u32 queued)
{
	struct segment_event *latest = &record->ring[(record->count - 1) & (RING - 1)];
	bool small;
	u64 now;

	if (record->held == MUCH_HELD)
		return;
	now = bpf_ktime_get_ns();
	if (record->held == SEVERAL_HELD && record->count && latest->kind == WRITE_HELD) {
		latest->time_ns = now;
		latest->bytes = queued;
		latest->write_seq = latest->snd_nxt + queued;
		return;
	}
	small = queued < BPF_CORE_READ(tp, mss_cache);
	if (record->held && !small)
		return;
	record->held = record->held ? SEVERAL_HELD : small ? ONE_HELD : MUCH_HELD;
	note(record, tp, WRITE_HELD, now);
}

/* send() has returned: does the kernel still hold some of it? Also the moment to learn who owns the socket. */
SEC("raw_tp/sock_send_length")
int write_returned(struct bpf_raw_tracepoint_args *ctx)
{
	struct tcp_sock *tp = (struct tcp_sock *)ctx->args[0];
	u64 key = (u64)(long)tp;
	struct socket_record *record;
	u32 queued;

	record = bpf_map_lookup_elem(&sockets, &key);
	if (!record)
		return 0;
	if (!record->owner_known) {
		struct flow_record *flow = bpf_map_lookup_elem(&flows, &record->flow);

		record->owner_known = 1;
		if (flow) {
			flow->pid = bpf_get_current_pid_tgid() >> 32;
			bpf_get_current_comm(flow->command, sizeof(flow->command));
		}
	}
	queued = BPF_CORE_READ(tp, write_seq) - BPF_CORE_READ(tp, snd_nxt);
	if (queued)
		hold(record, tp, queued);
	return 0;
}

SEC("raw_tp/inet_sock_set_state")
int state_changed(struct bpf_raw_tracepoint_args *ctx)
{
	struct tcp_sock *tp = (struct tcp_sock *)ctx->args[0];
	struct sock *sk = (struct sock *)tp;
	int old = ctx->args[1], new = ctx->args[2];
	u64 key = (u64)(long)tp, now;
	struct socket_record *record;

	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || (new != TCP_ESTABLISHED && new != TCP_CLOSE))
		return 0;
	now = bpf_ktime_get_ns();
	record = bpf_map_lookup_elem(&sockets, &key);
	if (new == TCP_CLOSE) {
		if (record) {
			struct flow_record *flow = bpf_map_lookup_elem(&flows, &record->flow);

			if (flow)
				flow->min_rtt_us = BPF_CORE_READ(tp, rtt_min.s[0].v);
			note(record, tp, CLOSED, now);
			finish(record);
			bpf_map_delete_elem(&sockets, &key);
		}
		return 0;
	}
	if (!record) {
		struct flow_record who = { .role = old == TCP_SYN_SENT ? ROLE_CLIENT : ROLE_SERVER, .role_seen = 1 };
		struct cgroup___cgroup *cgroup = cgroup_of(sk);

		if (settings.cgroup && !below_cgroup(cgroup, settings.cgroup))
			return 0;
		who.cgroup_id = BPF_CORE_READ(cgroup, kn, id);
		IDENTITY(&who, sk, BPF_CORE_READ);
		who.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
		if (!in_scope(settings.netns, settings.port, who.netns, who.local_port, who.remote_port))
			return 0;
		if (bpf_core_field_exists(tp->is_mptcp))
			who.mptcp = BPF_CORE_READ(tp, is_mptcp);
		record = admit(key, &who, now);
		if (!record)
			return 0;
	}
	record->established_ns = now;
	note(record, tp, ESTABLISHED, now);
	return 0;
}
