// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which frames go to the workers, which to the kernel, which nowhere.
 *
 * A frame gets one verdict. The order of the rules is the security argument:
 *
 *  1. Frames to another host's MAC address pass: they are not ours. What is not IP passes, and so does what
 *     the kernel never routes: link-local packets, link-local multicast, broadcast, packets without a source.
 *     ARP, ND, DHCP, OSPF live here. Multicast of a wider scope is dropped inside a protected pair, and
 *     passes elsewhere.
 *  2. What the gateway itself is addressed with: IKE passes; on the wan, ESP for us goes to the worker;
 *     then everything for a local address outside the local selectors passes.
 *  3. The (local, remote) prefix pair decides about all the rest, before anything looks at fragments or
 *     tags. A protected packet goes to a worker or dies. It never reaches the kernel's routing.
 *  4. The rest is the kernel's.
 *
 * Local addresses and selectors. On lan and host, a packet *to* the gateway passes in any case: it does not
 * leave the machine. On the wan, a clear packet to one of our addresses that a selector names (the gateway's
 * 10.1.0.1 in 10.1.0.0/16, or both ends of a host-to-host tunnel) is what RFC 4301 §5.2 wants discarded, so
 * the pair decides. A selector such as 0.0.0.0/0 names nobody: with it on both sides, "inside" would take
 * SSH, ICMP and the routing daemon of the gateway away, and the operator with them. So the loader sets
 * LOCAL_INSIDE only for prefixes of at least 8 bits (IPv4) or 7 (IPv6, as fc00::/7): the sizes that are
 * given to one owner. Clear packets for other hosts of such a pair still go to the worker. IKE, ND and
 * DHCP of the gateway pass even inside a selector: without them, no tunnel could come up.
 *
 * Fragments of a protected pair take the way of whole packets. The worker encrypts them where the policy has
 * no port selector and drops them where it has (RFC 4301 §7); passing them on would leak. Fragments of outer
 * packets (ESP, UDP 4500 and IKE for us) go to the kernel, which alone reassembles.
 *
 * Fail closed: bpf_redirect_map(…, XDP_DROP) drops where no socket is bound to the queue, also because
 * the data plane died. Its return value tells the two apart, and DROP_NO_XSK counts.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "verdicts.h"
#include "guard_verdicts.h"
#include "maps.h"
#include "lookup.h"
#include "parse.h"

#define PORT_IKE         500
#define PORT_NATT        4500
#define PORT_DHCP_SERVER 67
#define PORT_DHCP_CLIENT 68

/* Router solicitation to redirect (RFC 4861 §4), valid only if no router touched it (hop limit 255). */
#define ND_FIRST     133
#define ND_LAST      137
#define ND_HOP_LIMIT 255

/* Multicast scope of the link (RFC 4291 §2.7); those below it do not leave the interface. */
#define SCOPE_LINK_LOCAL 2

struct esp_header {
	__be32 spi;
	__be32 sequence;
};

static __always_inline void count(__u8 role, enum verdict verdict)
{
	__u32 key = role * VERDICT_COUNT + verdict;
	__u64 *frames = bpf_map_lookup_elem(&verdicts, &key);

	if (frames)
		(*frames)++;
}

static __always_inline int pass(__u8 role, enum verdict verdict)
{
	count(role, verdict);
	return XDP_PASS;
}

static __always_inline int drop(__u8 role, enum verdict verdict)
{
	count(role, verdict);
	return XDP_DROP;
}

static __always_inline int to_worker(struct xdp_md *ctx, const struct port *port, enum verdict verdict)
{
	__u32 queue = ctx->rx_queue_index;

	if (queue >= QUEUES_PER_PORT)
		return drop(port->role, DROP_NO_XSK);
	if (bpf_redirect_map(&xsks, port->slot * QUEUES_PER_PORT + queue, XDP_DROP) != XDP_REDIRECT)
		return drop(port->role, DROP_NO_XSK);
	count(port->role, verdict);
	return XDP_REDIRECT;
}

static __always_inline bool is_zero(const __u8 *octets, int n)
{
	__u8 any = 0;

#pragma unroll
	for (int i = 0; i < n; i++)
		any |= octets[i];
	return any == 0;
}

/*
 * The frame went to another host's MAC address: flooded by a switch, or seen because the port is promiscuous.
 * pollux0 has no link layer of its own: its frames carry whatever the kernel has at hand.
 */
static __always_inline bool is_for_other_host(const struct port *port, const struct facts *f)
{
	const struct ethhdr *eth = f->l2;

	if (!eth || f->group || port->role == ROLE_HOST || is_zero(port->mac, ETH_ALEN))
		return false;
	__u8 differ = 0;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		differ |= eth->h_dest[i] ^ port->mac[i];
	return differ != 0;
}

/*
 * Link-local, link-local multicast, broadcast, unspecified source: the kernel forwards none of them. IPv4
 * packets from or to 169.254.0.0/16 are not among them, since Linux does forward those.
 */
static __always_inline bool stays_on_link(const struct facts *f)
{
	const __u8 *d = f->destination;
	const __u8 *s = f->source;

	if (f->ipv6)
		return (d[0] == 0xff && (d[1] & 0x0f) <= SCOPE_LINK_LOCAL) ||
		       (d[0] == 0xfe && (d[1] & 0xc0) == 0x80) || (s[0] == 0xfe && (s[1] & 0xc0) == 0x80) ||
		       is_zero(s, 16);
	return (d[0] == 224 && d[1] == 0 && d[2] == 0) ||
	       (d[0] == 255 && d[1] == 255 && d[2] == 255 && d[3] == 255) || is_zero(s, 4);
}

/* Multicast of a scope that routers forward. */
static __always_inline bool is_multicast(const struct facts *f)
{
	return f->ipv6 ? f->destination[0] == 0xff : (f->destination[0] & 0xf0) == 224;
}

/* The entry of the destination among the gateway's own addresses, or NULL. */
static __always_inline const __u32 *local_address(const struct facts *f)
{
	return f->ipv6 ? bpf_map_lookup_elem(&local_addrs6, f->destination)
		       : bpf_map_lookup_elem(&local_addrs4, f->destination);
}

static __always_inline bool protected_pair(const struct facts *f, const __u8 *local, const __u8 *remote)
{
	return protected_by(f->ipv6, local, remote) != 0;
}

static __always_inline bool is_our_spi(__u32 spi)
{
	return spi >> SPI_TOP_SHIFT == SPI_TOP_BITS || bpf_map_lookup_elem(&spis, &spi);
}

static __always_inline bool is_dhcp_answer(const struct udphdr *udp)
{
	return udp->source == bpf_htons(PORT_DHCP_SERVER) && udp->dest == bpf_htons(PORT_DHCP_CLIENT);
}

/* UDP 4500 for the gateway: the first word tells keepalive, IKE, ESP and strangers apart (RFC 3948 §2). */
static __always_inline enum verdict judge_natt(struct cursor *c, const struct udphdr *udp)
{
	if (udp->len == bpf_htons(sizeof(*udp) + 1)) {
		__u8 *octet = take(c, 1);
		return octet && *octet == 0xff ? DROP_KEEPALIVE : PASS_NATT;
	}
	if (bpf_ntohs(udp->len) < sizeof(*udp) + sizeof(__be32))
		return PASS_NATT;
	__be32 *word = take(c, sizeof(*word));
	if (!word)
		return PASS_NATT;
	if (*word == 0)
		return PASS_IKE;
	return is_our_spi(bpf_ntohl(*word)) ? XSK_ESP_UDP : PASS_NATT;
}

/* An unfragmented packet for an address of the gateway, by its upper layer. PASS_LOCAL is "nothing special".
 */
static __always_inline enum verdict judge_own(const struct facts *f)
{
	struct cursor c = f->l4;

	if (f->protocol == IPPROTO_ESP)
		return take(&c, sizeof(struct esp_header)) ? XSK_ESP : PASS_MALFORMED;
	if (f->protocol == IPPROTO_ICMPV6 && f->ipv6 && f->hop_limit == ND_HOP_LIMIT) {
		__u8 *type = take(&c, 1);
		return type && *type >= ND_FIRST && *type <= ND_LAST ? PASS_ND : PASS_LOCAL;
	}
	if (f->protocol != IPPROTO_UDP)
		return PASS_LOCAL;
	struct udphdr *udp = take(&c, sizeof(*udp));
	if (!udp)
		return PASS_LOCAL;
	if (udp->dest == bpf_htons(PORT_IKE))
		return PASS_IKE;
	if (udp->dest == bpf_htons(PORT_NATT))
		return judge_natt(&c, udp);
	return is_dhcp_answer(udp) && !f->ipv6 ? PASS_DHCP : PASS_LOCAL;
}

/*
 * Whether a fragment may belong to an IKE message, which large certificates make of several fragments. A
 * later fragment carries no ports; it completes nothing unless the first one passed too, and the kernel
 * gives up a packet whose fragments overlap (RFC 5722).
 */
static __always_inline bool is_ike_fragment(const struct facts *f)
{
	struct cursor c = f->l4;

	if (f->protocol != IPPROTO_UDP)
		return false;
	if (f->later)
		return true;
	struct udphdr *udp = take(&c, sizeof(*udp));
	if (!udp)
		return false;
	return udp->dest == bpf_htons(PORT_IKE) ||
	       (udp->dest == bpf_htons(PORT_NATT) && judge_natt(&c, udp) == PASS_IKE);
}

/*
 * A DHCP server answers to the address that it offers, which is not ours yet and may lie inside a selector
 * as wide as 0.0.0.0/0. As a link-layer broadcast the answer reaches our DHCP client, and the kernel cannot
 * forward it to anyone else: ip_forward() refuses what is not addressed to this host's own MAC.
 */
static __always_inline bool pass_on_as_broadcast(const struct facts *f)
{
	struct cursor c = f->l4;

	if (f->ipv6 || f->fragment || f->tagged || f->protocol != IPPROTO_UDP)
		return false;
	struct udphdr *udp = take(&c, sizeof(*udp));
	if (!udp || !is_dhcp_answer(udp))
		return false;
	struct ethhdr *eth = f->l2;
	__builtin_memset(eth->h_dest, 0xff, ETH_ALEN);
	return true;
}

/* From the untrusted side. */
static __always_inline int wan(struct xdp_md *ctx, const struct port *port, const struct facts *f)
{
	const __u32 *local = local_address(f);
	enum verdict own = PASS_OTHER;

	if (local) {
		if (f->fragment && is_ike_fragment(f))
			return pass(port->role, PASS_FRAGMENT);
		own = f->fragment ? PASS_FRAGMENT : judge_own(f);
		if (own == PASS_IKE || own == PASS_ND || own == PASS_DHCP)
			return pass(port->role, own);
		if (own == XSK_ESP || own == XSK_ESP_UDP) {
			if (f->tagged) /* no worker reads tags, and ciphertext is no leak */
				return pass(port->role, PASS_LOCAL);
			return to_worker(ctx, port, own);
		}
		if (own == DROP_KEEPALIVE)
			return drop(port->role, own);
		if (!(*local & LOCAL_INSIDE))
			return pass(port->role, own);
	}
	if (protected_pair(f, f->destination, f->source)) {
		if (!local && pass_on_as_broadcast(f))
			return pass(port->role, PASS_DHCP);
		if (f->tagged)
			return drop(port->role, DROP_TAGGED);
		return to_worker(ctx, port, XSK_CLEAR);
	}
	return pass(port->role, own);
}

/* From the protected side: a LAN, or the host's own stack through our end of pollux0. */
static __always_inline int lan(struct xdp_md *ctx, const struct port *port, const struct facts *f)
{
	if (local_address(f))
		return pass(port->role, PASS_LOCAL);
	if (protected_pair(f, f->source, f->destination)) {
		if (f->group)
			return drop(port->role, DROP_GROUP_MAC);
		if (f->tagged)
			return drop(port->role, DROP_TAGGED);
		return to_worker(ctx, port, f->fragment ? XSK_FRAGMENT : XSK_PROTECTED);
	}
	return pass(port->role, PASS_OTHER);
}

/*
 * A tunnel carries unicast: no SA takes multicast, and the kernel would route it in clear past the policy
 * (RFC 4301 §4.4.1). A packet whose hops are used up, as IGMP and MLD reports are sent, is forwarded by
 * nobody.
 */
static __always_inline int multicast(const struct port *port, const struct facts *f)
{
	bool protected = port->role == ROLE_WAN ? protected_pair(f, f->destination, f->source)
						: protected_pair(f, f->source, f->destination);

	if (protected && f->hop_limit > 1)
		return drop(port->role, DROP_MULTICAST);
	return pass(port->role, PASS_SCOPE);
}

static __always_inline int steer_frame(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	struct facts f = {};

	if (!port || port->role >= ROLE_COUNT)
		return pass(ROLE_NONE, PASS_NO_ROLE);
	enum shape shape = parse(ctx, &f);
	if (is_for_other_host(port, &f))
		return pass(port->role, PASS_OTHER_HOST);
	switch (shape) {
	case SHAPE_NON_IP:
		return pass(port->role, PASS_NON_IP);
	case SHAPE_MALFORMED:
		return pass(port->role, PASS_MALFORMED);
	case SHAPE_TAG_DEPTH:
		return drop(port->role, DROP_TAG_DEPTH);
	case SHAPE_IP:
		break;
	}
	if (stays_on_link(&f))
		return pass(port->role, PASS_SCOPE);
	if (is_multicast(&f))
		return multicast(port, &f);
	switch (port->role) {
	case ROLE_WAN:
		return wan(ctx, port, &f);
	case ROLE_LAN:
	case ROLE_HOST:
		return lan(ctx, port, &f);
	}
	return pass(ROLE_NONE, PASS_NO_ROLE);
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	return steer_frame(ctx);
}

/* The same for frames that span several buffers: some drivers ask for it above an MTU of about 3,500. */
SEC("xdp.frags")
int steer_frags(struct xdp_md *ctx)
{
	return steer_frame(ctx);
}

char _license[] SEC("license") = "Dual BSD/GPL";
