/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What leaves the kernel: events, each with all that its name depends on, and none that is no news. */
#ifndef ACKWARD_TRACE_TELLING_H
#define ACKWARD_TRACE_TELLING_H

#include "trace_state.h"

/* An event with all but its segment filled in; the caller fills that in and submits it. */
static __always_inline struct trace_event *begin(struct traced_socket *socket, u8 what, u64 now)
{
	struct trace_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&totals.lost, 1);
		return 0;
	}
	event->now.time_ns = now;
	event->now.flow = socket->flow;
	event->held = socket->held;
	event->end = socket->end;
	event->data_ns = socket->data_ns;
	event->before = socket->mode;
	event->route_quickack = socket->mode.route_quickack;
	event->what = what;
	event->happened = socket->happened;
	event->timer = socket->timer;
	event->by_ack_timer = socket->by_ack_timer;
	socket->told = 1;
	return event;
}

static __always_inline void tell_segment(struct traced_socket *socket, struct __sk_buff *skb, struct tcp_sock *tp,
					 const struct segment *segment, u8 kind, u8 what, u64 now)
{
	struct trace_event *event = begin(socket, what, now);

	if (!event)
		return;
	describe_segment(&event->now, skb, tp, segment, kind);
	bpf_ringbuf_submit(event, 0);
}

static __always_inline bool in_pingpong(const struct traced_socket *socket, const struct ack_mode *mode)
{
	return mode->pingpong >= (socket->end.pingpong_threshold ?: 1);
}

/* Each ACK spends some of the budget and each answer raises pingpong: what turns neither on nor off is no news. */
static __always_inline bool news(const struct traced_socket *socket, const struct ack_mode *now)
{
	const struct ack_mode *was = &socket->mode;

	if (settings.every_ack && (now->quick != was->quick || now->pingpong != was->pingpong || now->ato != was->ato))
		return true;
	if (!was->ato)
		return false; /* no data had come yet: the first always starts a budget (tcp_event_data_recv) */
	return in_pingpong(socket, now) != in_pingpong(socket, was) || !now->quick != !was->quick ||
	       now->route_quickack != was->route_quickack;
}

/* The mode as it was judged: at ingress another CPU may be changing it. */
static __always_inline void submit_change(struct trace_event *event, const struct ack_mode *mode)
{
	event->now.quick = mode->quick;
	event->now.pingpong = mode->pingpong;
	event->now.ato = mode->ato;
	event->route_quickack = mode->route_quickack;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void look(struct traced_socket *socket, struct __sk_buff *skb, struct tcp_sock *tp,
				 const struct segment *segment, u8 kind, u64 now)
{
	struct trace_event *event;
	struct ack_mode mode;

	MODE(&mode, tp, DIRECT, DIRECT_BITS);
	if (news(socket, &mode) && (event = begin(socket, MODE_CHANGED, now))) {
		describe_segment(&event->now, skb, tp, segment, kind);
		submit_change(event, &mode);
	}
	socket->mode = mode;
	socket->happened = 0;
}

#endif
