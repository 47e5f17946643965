//! The numbers of the IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters".
//!
//! Each registry is an enum with one variant per number that we know and `Unknown` for the rest, so that
//! a number from the wire is never lost and never an error by itself.

use core::fmt;

macro_rules! registry {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($variant:ident = $value:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`, ", stringify!($value), ".")] $variant,)*
            /// A number that we do not know.
            Unknown($int),
        }

        impl $name {
            /// Every variant with a name.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];

            /// The variant of a number on the wire.
            pub const fn from_wire(number: $int) -> Self {
                match number { $($value => Self::$variant,)* other => Self::Unknown(other) }
            }

            /// The number on the wire.
            pub const fn to_wire(self) -> $int {
                match self { $(Self::$variant => $value,)* Self::Unknown(other) => other }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Unknown(number) => write!(f, "{}({number})", stringify!($name)),
                }
            }
        }
    };
}

registry! {
    /// IKEv2 payload types (RFC 7296 §3.2).
    PayloadType(u8) {
        None = 0 "none",
        Sa = 33 "SA",
        Ke = 34 "KE",
        IdI = 35 "IDi",
        IdR = 36 "IDr",
        Cert = 37 "CERT",
        CertReq = 38 "CERTREQ",
        Auth = 39 "AUTH",
        Nonce = 40 "Nonce",
        Notify = 41 "N",
        Delete = 42 "D",
        Vendor = 43 "V",
        TsI = 44 "TSi",
        TsR = 45 "TSr",
        Sk = 46 "SK",
        Cp = 47 "CP",
        Eap = 48 "EAP",
        Skf = 53 "SKF",
    }
}

registry! {
    /// IKEv2 exchange types (RFC 7296 §3.1).
    ExchangeType(u8) {
        IkeSaInit = 34 "IKE_SA_INIT",
        IkeAuth = 35 "IKE_AUTH",
        CreateChildSa = 36 "CREATE_CHILD_SA",
        Informational = 37 "INFORMATIONAL",
        IkeSessionResume = 38 "IKE_SESSION_RESUME",
        IkeIntermediate = 43 "IKE_INTERMEDIATE",
        IkeFollowupKe = 44 "IKE_FOLLOWUP_KE",
    }
}

registry! {
    /// Security protocol identifiers (RFC 7296 §3.3.1).
    Protocol(u8) {
        None = 0 "none",
        Ike = 1 "IKE",
        Ah = 2 "AH",
        Esp = 3 "ESP",
    }
}

registry! {
    /// Transform types (RFC 7296 §3.3.2, RFC 9370 §2.2.1).
    TransformType(u8) {
        Encryption = 1 "ENCR",
        Prf = 2 "PRF",
        Integrity = 3 "INTEG",
        KeyExchange = 4 "KE",
        SequenceNumbers = 5 "ESN",
        AdditionalKe1 = 6 "ADDKE1",
        AdditionalKe2 = 7 "ADDKE2",
        AdditionalKe3 = 8 "ADDKE3",
        AdditionalKe4 = 9 "ADDKE4",
        AdditionalKe5 = 10 "ADDKE5",
        AdditionalKe6 = 11 "ADDKE6",
        AdditionalKe7 = 12 "ADDKE7",
    }
}

registry! {
    /// Identification types (RFC 7296 §3.5).
    IdType(u8) {
        Ipv4Addr = 1 "ID_IPV4_ADDR",
        Fqdn = 2 "ID_FQDN",
        Rfc822Addr = 3 "ID_RFC822_ADDR",
        Ipv6Addr = 5 "ID_IPV6_ADDR",
        DerAsn1Dn = 9 "ID_DER_ASN1_DN",
        DerAsn1Gn = 10 "ID_DER_ASN1_GN",
        KeyId = 11 "ID_KEY_ID",
        Null = 13 "ID_NULL",
    }
}

registry! {
    /// Authentication methods (RFC 7296 §3.8, RFC 7427, RFC 7619).
    AuthMethod(u8) {
        RsaSignature = 1 "RSA digital signature",
        SharedKey = 2 "shared key",
        DssSignature = 3 "DSS digital signature",
        EcdsaP256 = 9 "ECDSA with SHA-256 on P-256",
        EcdsaP384 = 10 "ECDSA with SHA-384 on P-384",
        EcdsaP521 = 11 "ECDSA with SHA-512 on P-521",
        SecurePassword = 12 "generic secure password",
        Null = 13 "NULL authentication",
        DigitalSignature = 14 "digital signature",
    }
}

registry! {
    /// Certificate encodings (RFC 7296 §3.6).
    CertEncoding(u8) {
        Pkcs7 = 1 "PKCS #7 wrapped X.509",
        X509Signature = 4 "X.509 signature",
        Crl = 7 "certificate revocation list",
        HashAndUrl = 12 "hash and URL of X.509 certificate",
        HashAndUrlBundle = 13 "hash and URL of X.509 bundle",
        OcspContent = 14 "OCSP content",
        RawPublicKey = 15 "raw public key",
    }
}

registry! {
    /// Configuration payload types (RFC 7296 §3.15).
    CfgType(u8) {
        Request = 1 "CFG_REQUEST",
        Reply = 2 "CFG_REPLY",
        Set = 3 "CFG_SET",
        Ack = 4 "CFG_ACK",
    }
}

registry! {
    /// Notify message types: errors up to 16383, status from 16384 (RFC 7296 §3.10.1).
    NotifyType(u16) {
        UnsupportedCriticalPayload = 1 "UNSUPPORTED_CRITICAL_PAYLOAD",
        InvalidIkeSpi = 4 "INVALID_IKE_SPI",
        InvalidMajorVersion = 5 "INVALID_MAJOR_VERSION",
        InvalidSyntax = 7 "INVALID_SYNTAX",
        InvalidMessageId = 9 "INVALID_MESSAGE_ID",
        InvalidSpi = 11 "INVALID_SPI",
        NoProposalChosen = 14 "NO_PROPOSAL_CHOSEN",
        InvalidKePayload = 17 "INVALID_KE_PAYLOAD",
        AuthenticationFailed = 24 "AUTHENTICATION_FAILED",
        SinglePairRequired = 34 "SINGLE_PAIR_REQUIRED",
        NoAdditionalSas = 35 "NO_ADDITIONAL_SAS",
        InternalAddressFailure = 36 "INTERNAL_ADDRESS_FAILURE",
        FailedCpRequired = 37 "FAILED_CP_REQUIRED",
        TsUnacceptable = 38 "TS_UNACCEPTABLE",
        InvalidSelectors = 39 "INVALID_SELECTORS",
        UnacceptableAddresses = 40 "UNACCEPTABLE_ADDRESSES",
        UnexpectedNatDetected = 41 "UNEXPECTED_NAT_DETECTED",
        UseAssignedHoa = 42 "USE_ASSIGNED_HoA",
        TemporaryFailure = 43 "TEMPORARY_FAILURE",
        ChildSaNotFound = 44 "CHILD_SA_NOT_FOUND",
        InvalidGroupId = 45 "INVALID_GROUP_ID",
        AuthorizationFailed = 46 "AUTHORIZATION_FAILED",
        StateNotFound = 47 "STATE_NOT_FOUND",
        TsMaxQueue = 48 "TS_MAX_QUEUE",
        InitialContact = 16384 "INITIAL_CONTACT",
        SetWindowSize = 16385 "SET_WINDOW_SIZE",
        AdditionalTsPossible = 16386 "ADDITIONAL_TS_POSSIBLE",
        IpcompSupported = 16387 "IPCOMP_SUPPORTED",
        NatDetectionSourceIp = 16388 "NAT_DETECTION_SOURCE_IP",
        NatDetectionDestinationIp = 16389 "NAT_DETECTION_DESTINATION_IP",
        Cookie = 16390 "COOKIE",
        UseTransportMode = 16391 "USE_TRANSPORT_MODE",
        HttpCertLookupSupported = 16392 "HTTP_CERT_LOOKUP_SUPPORTED",
        RekeySa = 16393 "REKEY_SA",
        EspTfcPaddingNotSupported = 16394 "ESP_TFC_PADDING_NOT_SUPPORTED",
        NonFirstFragmentsAlso = 16395 "NON_FIRST_FRAGMENTS_ALSO",
        MobikeSupported = 16396 "MOBIKE_SUPPORTED",
        AdditionalIp4Address = 16397 "ADDITIONAL_IP4_ADDRESS",
        AdditionalIp6Address = 16398 "ADDITIONAL_IP6_ADDRESS",
        NoAdditionalAddresses = 16399 "NO_ADDITIONAL_ADDRESSES",
        UpdateSaAddresses = 16400 "UPDATE_SA_ADDRESSES",
        Cookie2 = 16401 "COOKIE2",
        NoNatsAllowed = 16402 "NO_NATS_ALLOWED",
        AuthLifetime = 16403 "AUTH_LIFETIME",
        MultipleAuthSupported = 16404 "MULTIPLE_AUTH_SUPPORTED",
        AnotherAuthFollows = 16405 "ANOTHER_AUTH_FOLLOWS",
        RedirectSupported = 16406 "REDIRECT_SUPPORTED",
        Redirect = 16407 "REDIRECT",
        RedirectedFrom = 16408 "REDIRECTED_FROM",
        TicketLtOpaque = 16409 "TICKET_LT_OPAQUE",
        TicketRequest = 16410 "TICKET_REQUEST",
        TicketAck = 16411 "TICKET_ACK",
        TicketNack = 16412 "TICKET_NACK",
        TicketOpaque = 16413 "TICKET_OPAQUE",
        LinkId = 16414 "LINK_ID",
        UseWespMode = 16415 "USE_WESP_MODE",
        RohcSupported = 16416 "ROHC_SUPPORTED",
        EapOnlyAuthentication = 16417 "EAP_ONLY_AUTHENTICATION",
        ChildlessIkev2Supported = 16418 "CHILDLESS_IKEV2_SUPPORTED",
        QuickCrashDetection = 16419 "QUICK_CRASH_DETECTION",
        MessageIdSyncSupported = 16420 "IKEV2_MESSAGE_ID_SYNC_SUPPORTED",
        ReplayCounterSyncSupported = 16421 "IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED",
        MessageIdSync = 16422 "IKEV2_MESSAGE_ID_SYNC",
        ReplayCounterSync = 16423 "IPSEC_REPLAY_COUNTER_SYNC",
        SecurePasswordMethods = 16424 "SECURE_PASSWORD_METHODS",
        PskPersist = 16425 "PSK_PERSIST",
        PskConfirm = 16426 "PSK_CONFIRM",
        ErxSupported = 16427 "ERX_SUPPORTED",
        IfomCapability = 16428 "IFOM_CAPABILITY",
        SenderRequestId = 16429 "SENDER_REQUEST_ID",
        FragmentationSupported = 16430 "IKEV2_FRAGMENTATION_SUPPORTED",
        SignatureHashAlgorithms = 16431 "SIGNATURE_HASH_ALGORITHMS",
        CloneIkeSaSupported = 16432 "CLONE_IKE_SA_SUPPORTED",
        CloneIkeSa = 16433 "CLONE_IKE_SA",
        Puzzle = 16434 "PUZZLE",
        UsePpk = 16435 "USE_PPK",
        PpkIdentity = 16436 "PPK_IDENTITY",
        NoPpkAuth = 16437 "NO_PPK_AUTH",
        IntermediateExchangeSupported = 16438 "INTERMEDIATE_EXCHANGE_SUPPORTED",
        Ip4Allowed = 16439 "IP4_ALLOWED",
        Ip6Allowed = 16440 "IP6_ALLOWED",
        AdditionalKeyExchange = 16441 "ADDITIONAL_KEY_EXCHANGE",
        UseAggfrag = 16442 "USE_AGGFRAG",
        SupportedAuthMethods = 16443 "SUPPORTED_AUTH_METHODS",
        SaResourceInfo = 16444 "SA_RESOURCE_INFO",
        UsePpkInt = 16445 "USE_PPK_INT",
        PpkIdentityKey = 16446 "PPK_IDENTITY_KEY",
    }
}

impl NotifyType {
    /// Whether the number is in the range of errors (RFC 7296 §3.10.1).
    ///
    /// An unknown error in a response means that the request has failed; an unknown status, or anything
    /// unknown in a request, is ignored.
    pub const fn is_error(self) -> bool {
        self.to_wire() < 16384
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_leads_back_to_itself() {
        for number in 0..=u8::MAX {
            assert_eq!(PayloadType::from_wire(number).to_wire(), number);
            assert_eq!(ExchangeType::from_wire(number).to_wire(), number);
            assert_eq!(TransformType::from_wire(number).to_wire(), number);
        }
        for number in 0..=u16::MAX {
            let kind = NotifyType::from_wire(number);
            assert_eq!(kind.to_wire(), number);
            assert_eq!(kind.is_error(), number < 16384);
        }
        for &kind in NotifyType::KNOWN {
            assert_eq!(NotifyType::from_wire(kind.to_wire()), kind);
        }
    }

    #[test]
    fn unknown_numbers_are_printed_with_their_registry() {
        assert_eq!(NotifyType::Unknown(40000).to_string(), "NotifyType(40000)");
        assert_eq!(NotifyType::NoProposalChosen.to_string(), "NO_PROPOSAL_CHOSEN");
    }
}
