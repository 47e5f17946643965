/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the XDP program and its loader agree on. src/abi.rs says the same in Rust; tests/steer.rs compares
 * the two, line by line, so that every constant here is a decimal or hexadecimal literal.
 */
#ifndef POLLUX_ABI_H
#define POLLUX_ABI_H

/* Raised with every change of a map's layout or meaning: pins of another version are not reused. */
#define ABI_VERSION 2

/* What an interface is to the gateway. 0 is an interface that nobody declared. */
#define ROLE_NONE  0
#define ROLE_WAN   1
#define ROLE_LAN   2
#define ROLE_HOST  3
#define ROLE_COUNT 4

/* The XSKMAP's key is slot * QUEUES_PER_PORT + queue. */
#define PORT_SLOTS      32
#define QUEUES_PER_PORT 64

/* Our own SPIs begin with these bits (RFC 7983 leaves them to QUIC alone). */
#define SPI_TOP_SHIFT 30
#define SPI_TOP_BITS  3

/* Value bit of a local address that lies inside a local selector narrow enough to mean it. */
#define LOCAL_INSIDE 1

/* Bit of a class whose prefix is too short to name anybody (0.0.0.0/0). */
#define CLASS_WIDE 0x80000000

/* Bounds of the two header chains. Linux itself takes 8 IPv6 extension headers by default (RFC 8504). */
#define VLAN_TAGS_MAX    4
#define IPV6_HEADERS_MAX 8

/* Value of `ports`, 16 octets. */
struct port {
	__u32 netns; /* inode of the network namespace that the ifindex belongs to */
	__u16 slot;
	__u8 role;
	__u8 mode;   /* how the loader attached it; the program does not look */
	__u8 mac[6]; /* frames to another unicast address are not ours; zero: not known, all are */
	__u8 zero[2];
};

/* Key of a set of protected pairs, 8 octets: what the two tries returned. */
struct class_pair {
	__u32 local;
	__u32 remote;
};

/* Value of `guard_sockets`, 4 octets. */
struct guard_socket {
	__u16 kind;
	__u16 port; /* UDP port of an IKE socket, in host order */
};

struct lpm4_key {
	__u32 prefix_len;
	__u8 address[4];
};

struct lpm6_key {
	__u32 prefix_len;
	__u8 address[16];
};

#endif
