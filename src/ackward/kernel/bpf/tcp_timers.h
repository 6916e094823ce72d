/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which of its timers sent a segment, as the socket shows it while the segment leaves (cgroup_skb/egress).
 *
 * A timer that goes off is taken out of its wheel before its handler runs (expire_timers, detach_timer), and the handler
 * sends before it arms anything again. So neither the timers of the whole host need to be watched, nor an address of the
 * kernel be known; and a handler that came while a program held the socket, and was run for it later
 * (tcp_release_cb), is told like any other.
 */
#ifndef ACKWARD_TCP_TIMERS_H
#define ACKWARD_TCP_TIMERS_H

#include "tcp_segment.h"

enum write_timer { RETRANSMISSION = 1, ZERO_WINDOW_PROBE = 3, LOSS_PROBE = 5, REORDERING = 6 }; /* ICSK_TIME_* */

/* Where Linux keeps the write timer since 6.19. */
struct sock___write_timer {
	struct timer_list tcp_retransmit_timer;
} __attribute__((preserve_access_index));

static __always_inline bool waits(struct timer_list *timer)
{
	return timer->entry.pprev;
}

static __always_inline bool write_timer_waits(struct tcp_sock *tp)
{
	if (bpf_core_field_exists(tp->inet_conn.icsk_retransmit_timer))
		return waits(&tp->inet_conn.icsk_retransmit_timer);
	return waits(&((struct sock___write_timer *)tp)->tcp_retransmit_timer);
}

/*
 * The write timer whose handler sends this segment (tcp_write_timer_handler); 0 if none does. The handler forgets what
 * was pending before a retransmission and before a window probe, and at no other time is nothing pending while segments
 * are on their way, or a probe below snd_una while bytes wait to be sent.
 */
static __always_inline u8 sending_timer(struct tcp_sock *tp, const struct segment *segment)
{
	u8 pending = tp->inet_conn.icsk_pending;

	if (write_timer_waits(tp))
		return 0;
	if (pending == LOSS_PROBE || pending == REORDERING)
		return pending;
	if (pending)
		return 0;
	if (tp->packets_out)
		return before(segment->seq, tp->snd_nxt) ? RETRANSMISSION : 0;
	return before(segment->seq, tp->snd_una) && tp->write_seq != tp->snd_nxt ? ZERO_WINDOW_PROBE : 0;
}

/* To be kept of data that arrives: when the first came that has no ACK yet. */
static __always_inline void data_arrives(struct tcp_sock *tp, u64 *oldest_jiffies)
{
	if (tp->rcv_wup == tp->rcv_nxt)
		*oldest_jiffies = bpf_jiffies64();
}

/* Whether the delayed-ACK timer sends this segment: armed after that data came, it has gone off (tcp_delack_timer). */
static __always_inline bool sent_by_ack_timer(struct tcp_sock *tp, const struct segment *segment, u64 oldest_jiffies)
{
	struct timer_list *timer = &tp->inet_conn.icsk_delack_timer;
	u64 expires = timer->expires;

	return !segment->bytes && !waits(timer) && oldest_jiffies < expires && expires <= bpf_jiffies64();
}

#endif
