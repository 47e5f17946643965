/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The guard at the exit: a packet in clear whose source is the local and whose destination is the remote side
 * of a protected pair does not leave the machine, whoever sent it.
 *
 * Two layers share this file. guard_nf.bpf.c is a netfilter program at POSTROUTING, before source NAT can
 * hide the pair; guard.bpf.c runs at the egress of every device, and also sees what a packet socket sends.
 * Each declares `struct reader` and read_at(), which reads octets counted from the IP header.
 *
 * What passes although its pair is protected, in the order of judge():
 *
 *  - what a worker has sent or handed to the kernel: it carries out the policy;
 *  - out of a lan port, to a destination inside a local selector, or one that no router passes on;
 *  - what the gateway sends from an address that no narrow local selector names, to a remote prefix that
 * names nobody either (0.0.0.0/0): the exception of steer.bpf.c against locking the operator out;
 *  - neighbour discovery: ICMPv6 133 to 137 with the hop limit 255, which no forwarded packet has;
 *  - DHCP of the gateway's own client and server;
 *  - IKE of control's own sockets, by cookie, source port and framing. A mark or a port alone proves nothing;
 *  - what a policy lets pass in clear (bypass).
 */
#ifndef POLLUX_GUARD_H
#define POLLUX_GUARD_H

#define PORT_DHCP_SERVER   67
#define PORT_DHCP_CLIENT   68
#define PORT_DHCPV6_CLIENT 546
#define PORT_DHCPV6_SERVER 547

#define ND_FIRST     133
#define ND_LAST      137
#define ND_HOP_LIMIT 255

#define IFINDEX_LO 1

/* Extension headers before IKE, DHCP or neighbour discovery: a fragment header, and one more. */
#define GUARD_HEADERS_MAX 2

#define IKE_VERSION 0x20 /* major 2, minor 0 (RFC 7296 §3.1) */

/* The IKE header (RFC 7296 §3.1). */
struct ike_header {
	__u8 spis[16];
	__u8 next_payload;
	__u8 version;
	__u8 exchange;
	__u8 flags;
	__be32 message_id;
	__be32 length;
};

/* A packet on its way out. An IPv4 address lies in the first 4 octets. */
struct sent {
	__u8 source[16];
	__u8 destination[16];
	__u64 cookie; /* of the sending socket, or 0 */
	__u32 in;     /* ifindex that it came in on, or 0 */
	__u32 out;    /* ifindex that it leaves on */
	__u32 l4;     /* offset of the upper layer */
	__u16 source_port;
	__u16 destination_port;
	bool ipv6;
	bool fragment; /* not the first of several */
	bool ports;    /* the two ports are known */
	__u8 protocol;
	__u8 hop_limit;
};

static __always_inline void count(__u32 layer, enum guard_verdict verdict)
{
	__u32 key = layer * GUARD_VERDICT_COUNT + verdict;
	__u64 *packets = bpf_map_lookup_elem(&guard_counts, &key);

	if (packets)
		(*packets)++;
}

static __always_inline bool read_ipv4(const struct reader *r, struct sent *s)
{
	struct iphdr ip;

	if (!read_at(r, 0, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	__builtin_memcpy(s->source, &ip.saddr, 4);
	__builtin_memcpy(s->destination, &ip.daddr, 4);
	s->protocol = ip.protocol;
	s->hop_limit = ip.ttl;
	s->fragment = ip.frag_off & bpf_htons(0x1fff);
	s->l4 = ip.ihl * 4;
	return true;
}

static __always_inline bool read_ipv6(const struct reader *r, struct sent *s)
{
	struct ipv6hdr ip;

	if (!read_at(r, 0, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(s->source, &ip.saddr, 16);
	__builtin_memcpy(s->destination, &ip.daddr, 16);
	s->ipv6 = true;
	s->protocol = ip.nexthdr;
	s->hop_limit = ip.hop_limit;
	s->l4 = sizeof(ip);
	return true;
}

/*
 * Past the extension headers, which the exceptions alone ask for. A chain that is cut short or too long
 * leaves the protocol at the last header reached, and the packet without exceptions.
 */
static __always_inline void walk_ipv6(const struct reader *r, struct sent *s)
{
	for (int i = 0; i < GUARD_HEADERS_MAX; i++) {
		__u8 header[4];
		__u32 length = 8;

		if (s->protocol != IPPROTO_HOPOPTS && s->protocol != IPPROTO_ROUTING &&
		    s->protocol != IPPROTO_DSTOPTS && s->protocol != IPPROTO_FRAGMENT)
			return;
		if (!read_at(r, s->l4, header, sizeof(header)))
			return;
		if (s->protocol == IPPROTO_FRAGMENT)
			s->fragment = header[2] || header[3] & 0xf8;
		else
			length = 8 + header[1] * 8;
		s->protocol = header[0];
		s->l4 += length;
		if (s->fragment)
			return;
	}
}

static __always_inline void read_ports(const struct reader *r, struct sent *s)
{
	__be16 ports[2];

	if (s->fragment || (s->protocol != IPPROTO_UDP && s->protocol != IPPROTO_TCP &&
			    s->protocol != IPPROTO_SCTP && s->protocol != IPPROTO_UDPLITE))
		return;
	if (!read_at(r, s->l4, ports, sizeof(ports)))
		return;
	s->source_port = bpf_ntohs(ports[0]);
	s->destination_port = bpf_ntohs(ports[1]);
	s->ports = true;
}

/* To everybody on the link and to nobody beyond: no router passes these on. */
static __always_inline bool stays_on_link(const struct sent *s)
{
	const __u8 *d = s->destination;

	if (s->ipv6)
		return (d[0] == 0xff && (d[1] & 0x0f) <= 2) || (d[0] == 0xfe && (d[1] & 0xc0) == 0x80);
	return (d[0] == 224 && d[1] == 0 && d[2] == 0) ||
	       (d[0] == 255 && d[1] == 255 && d[2] == 255 && d[3] == 255);
}

static __always_inline bool source_is_unspecified(const struct sent *s)
{
	__u8 any = 0;

	for (int i = 0; i < 16; i++) /* behind an IPv4 address there are zeros */
		any |= s->source[i];
	return any == 0;
}

static __always_inline bool leaves_on_lan(const struct sent *s)
{
	__u32 ifindex = s->out;
	const struct port *port = bpf_map_lookup_elem(&ports, &ifindex);

	return port && port->role == ROLE_LAN;
}

static __always_inline const __u32 *own_source(const struct sent *s)
{
	return s->ipv6 ? bpf_map_lookup_elem(&local_addrs6, s->source)
		       : bpf_map_lookup_elem(&local_addrs4, s->source);
}

/*
 * Before the data plane has ever said which addresses the gateway has (the guard alone after boot): whatever
 * the machine itself sends from a source that no narrow local selector covers.
 */
static __always_inline bool may_be_own(const struct sent *s)
{
	__u32 unknown = 0;
	const __u32 *class = local_class(s->ipv6, s->source);

	return !s->in && class && *class & CLASS_WIDE && bpf_map_lookup_elem(&host_links, &unknown);
}

static __always_inline bool is_nd(const struct reader *r, const struct sent *s)
{
	__u8 type;

	if (!s->ipv6 || s->fragment || s->protocol != IPPROTO_ICMPV6 || s->hop_limit != ND_HOP_LIMIT)
		return false;
	return read_at(r, s->l4, &type, sizeof(type)) && type >= ND_FIRST && type <= ND_LAST;
}

/*
 * A client without an address asks everybody; one that renews its lease asks the server from the address that
 * it has. A server answers everybody. DHCPv6 has link-local sources. A forwarded packet is none of these.
 */
static __always_inline bool is_dhcp(const struct sent *s, bool own)
{
	if (!s->ports || s->protocol != IPPROTO_UDP)
		return false;
	if (s->ipv6)
		return own &&
		       ((s->source_port == PORT_DHCPV6_CLIENT && s->destination_port == PORT_DHCPV6_SERVER) ||
			(s->source_port == PORT_DHCPV6_SERVER && s->destination_port == PORT_DHCPV6_CLIENT));
	if (s->source_port == PORT_DHCP_CLIENT && s->destination_port == PORT_DHCP_SERVER)
		return own || (source_is_unspecified(s) && stays_on_link(s));
	return own && s->source_port == PORT_DHCP_SERVER && s->destination_port == PORT_DHCP_CLIENT &&
	       stays_on_link(s);
}

/*
 * UDP of one of control's sockets, framed as IKE: a header of version 2 whose length is that of the datagram,
 * on port 4500 behind the zero marker (RFC 3948 §2.2), or a NAT keepalive. Of a fragmented datagram the
 * fragments after the first have nothing but the socket.
 */
static __always_inline bool is_ike(const struct reader *r, const struct sent *s, __u16 port)
{
	struct udphdr udp;
	struct ike_header ike;
	__be32 marker;
	__u32 at = s->l4 + sizeof(udp);

	if (s->protocol != IPPROTO_UDP)
		return false;
	if (s->fragment)
		return true;
	if (!read_at(r, s->l4, &udp, sizeof(udp)) || bpf_ntohs(udp.source) != port)
		return false;
	__u32 length = bpf_ntohs(udp.len) - sizeof(udp);

	if (length == 1) {
		__u8 octet;

		return read_at(r, at, &octet, sizeof(octet)) && octet == 0xff;
	}
	if (!read_at(r, at, &marker, sizeof(marker)))
		return false;
	if (marker == 0) {
		at += sizeof(marker);
		length -= sizeof(marker);
	}
	if (!read_at(r, at, &ike, sizeof(ike)))
		return false;
	return ike.version == IKE_VERSION && bpf_ntohl(ike.length) == length;
}

/* The verdict on a packet whose addresses have been read. */
static __always_inline enum guard_verdict judge(const struct reader *r, struct sent *s)
{
	__u32 class = protected_by(s->ipv6, s->source, s->destination);

	if (!class)
		return GUARD_PASS;
	if (s->in && bpf_map_lookup_elem(&host_links, &s->in))
		return GUARD_PASS_WORKER;
	const struct guard_socket *socket = NULL;
	if (s->cookie)
		socket = bpf_map_lookup_elem(&guard_sockets, &s->cookie);
	if (socket && socket->kind == SOCKET_XSK)
		return GUARD_PASS_WORKER;

	if (leaves_on_lan(s) && (stays_on_link(s) || local_class(s->ipv6, s->destination)))
		return GUARD_PASS_LAN;
	const __u32 *own = own_source(s);
	if (class & CLASS_WIDE && (own ? !(*own & LOCAL_INSIDE) : may_be_own(s)))
		return GUARD_PASS_OWN;
	if (source_is_unspecified(s) && stays_on_link(s))
		return GUARD_PASS_LINK;

	if (s->ipv6)
		walk_ipv6(r, s);
	read_ports(r, s);
	if (is_nd(r, s))
		return GUARD_PASS_ND;
	if (is_dhcp(s, own != NULL))
		return GUARD_PASS_DHCP;
	if (socket && socket->kind == SOCKET_IKE && is_ike(r, s, socket->port))
		return GUARD_PASS_IKE;
	return GUARD_DROP_CLEAR;
}

#endif
