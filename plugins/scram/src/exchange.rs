//! The messages of SCRAM-SHA-256 (RFC 5802, RFC 7677), on the server's side.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::users::{KEY_BYTES, Users, Verifier, hash, prepared, sign};

/// The name of the method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// The most bytes of a message of the client's.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Random bytes of the server's part of the nonce.
const NONCE_BYTES: usize = 18;

/// Why somebody may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A message is not what SCRAM has in its place.
    Malformed(&'static str),
    /// The user does not exist, or the password is another one. It does not say which.
    Credentials,
    /// It is a user, and not the one that this connection is of.
    OtherUser,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "this is not SCRAM-SHA-256: {what}"),
            Self::Credentials => f.write_str("wrong User Name or Password"),
            Self::OtherUser => f.write_str("this is another user than the one that has connected"),
        }
    }
}

/// An exchange in which the server has answered, and the client has to prove that it knows the password.
pub struct Exchange {
    username: String,
    verifier: Verifier,
    /// What both have said so far.
    transcript: String,
    nonce: String,
    /// The client's header in base64, which it has to repeat.
    header: String,
}

/// A random text for a new exchange. `None` if the system has no random numbers.
#[must_use]
pub fn new_nonce() -> Option<String> {
    let mut bytes = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}

impl Exchange {
    /// Takes the client's first message. The answer is the server's first one.
    ///
    /// # Errors
    /// The message is none of SCRAM, or asks for what there is not here.
    pub fn begin(users: &Users, message: &[u8], nonce: &str) -> Result<(Self, Vec<u8>), Refusal> {
        let message = text(message)?;
        let (flag, rest) = message.split_once(',').ok_or(Refusal::Malformed("the first message has no header"))?;
        let (identity, bare) = rest.split_once(',').ok_or(Refusal::Malformed("the first message has no header"))?;
        match flag {
            "n" | "y" => {}
            _ => return Err(Refusal::Malformed("channel binding is not offered, expected `n,` or `y,`")),
        }
        let mut parts = bare.split(',');
        let name = parts.next().and_then(|part| part.strip_prefix("n="));
        let username = unescaped(name.ok_or(Refusal::Malformed("expected `n=` and the user's name"))?)?;
        let own = parts.next().and_then(|part| part.strip_prefix("r=")).filter(|own| !own.is_empty());
        let own = own.ok_or(Refusal::Malformed("expected `r=` and a nonce"))?;
        if !identity.is_empty() && identity.strip_prefix("a=").map(unescaped) != Some(Ok(username.clone())) {
            return Err(Refusal::Malformed("nobody may act for another user"));
        }
        let verifier = users.verifier(&username);
        let nonce = format!("{own}{nonce}");
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.rounds);
        let header = STANDARD.encode(format!("{flag},{identity},"));
        let transcript = format!("{bare},{answer}");
        Ok((Self { username, verifier, transcript, nonce, header }, answer.into_bytes()))
    }

    /// Takes the client's last message. Who it is, and the server's last message, which proves that it knows the user.
    ///
    /// # Errors
    /// The message is none of SCRAM, or the user does not know the password.
    pub fn finish(self, message: &[u8]) -> Result<(String, Vec<u8>), Refusal> {
        let message = text(message)?;
        let (bare, proof) = message.rsplit_once(",p=").ok_or(Refusal::Malformed("expected `p=` and a proof"))?;
        let mut parts = bare.split(',');
        let header = parts.next().and_then(|part| part.strip_prefix("c="));
        if header != Some(&self.header) {
            return Err(Refusal::Malformed("expected `c=` and the header of the first message"));
        }
        let nonce = parts.next().and_then(|part| part.strip_prefix("r="));
        if nonce != Some(&self.nonce) {
            return Err(Refusal::Malformed("expected `r=` and the nonce of this exchange"));
        }
        let proof: [u8; KEY_BYTES] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(Refusal::Malformed("the proof is not 32 bytes in base64"))?;
        let said = format!("{},{bare}", self.transcript);
        let signature = sign(&self.verifier.stored_key, said.as_bytes());
        let mut client_key = proof;
        client_key.iter_mut().zip(signature).for_each(|(byte, other)| *byte ^= other);
        if !bool::from(hash(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(Refusal::Credentials);
        }
        let signature = sign(&self.verifier.server_key, said.as_bytes());
        Ok((self.username, format!("v={}", STANDARD.encode(signature)).into_bytes()))
    }
}

fn text(message: &[u8]) -> Result<&str, Refusal> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::Malformed("the message is too long"));
    }
    std::str::from_utf8(message).map_err(|_| Refusal::Malformed("the message is not UTF-8"))
}

/// A name in which `=2C` stands for a comma, and `=3D` for an equals sign; prepared as names are compared.
fn unescaped(name: &str) -> Result<String, Refusal> {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, behind)) = rest.split_once('=') {
        text.push_str(before);
        rest = if let Some(rest) = behind.strip_prefix("2C") {
            text.push(',');
            rest
        } else if let Some(rest) = behind.strip_prefix("3D") {
            text.push('=');
            rest
        } else {
            return Err(Refusal::Malformed("in a name `=` is written `=3D`"));
        };
    }
    text.push_str(rest);
    prepared(&text).map(Into::into).map_err(|_| Refusal::Malformed("the name is empty or not allowed by SASLprep"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// `user` has the password `pencil`, with the salt of RFC 7677.
    fn users() -> Users {
        let json = r#"{"users": [{"username": "user", "verifier":
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="}]}"#;
        plugin_api::config::read(json).and_then(Users::new).unwrap_or_else(|error| panic!("{error}"))
    }

    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_rfc_7677() {
        let (exchange, answer) = Exchange::begin(&users(), FIRST.as_bytes(), NONCE).expect("a first message");
        assert_eq!(
            String::from_utf8_lossy(&answer),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let (user, last) = exchange.finish(FINAL.as_bytes()).expect("the password is right");
        assert_eq!(user, "user");
        assert_eq!(String::from_utf8_lossy(&last), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn what_is_not_scram_is_refused() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,r=abc",
            "n,,n=,r=abc",
            "n,,n=a=b,r=abc",
            "n,,n=us\u{7}er,r=abc",
            "n,,n=\u{ad},r=abc",
            "n,,n=user,r=",
            "n,,n=user",
            "n,,m=x,n=user,r=abc",
            "p=tls-unique,,n=user,r=abc",
            "n,a=root,n=user,r=abc",
            "n,user,n=user,r=abc",
        ] {
            let refusal = Exchange::begin(&users(), first.as_bytes(), NONCE).err();
            assert!(matches!(refusal, Some(Refusal::Malformed(_))), "{first}: {refusal:?}");
        }
        assert!(Exchange::begin(&users(), b"n,,n=\xff,r=abc", NONCE).is_err());
        assert!(Exchange::begin(&users(), format!("n,,n=user,r={}", "x".repeat(5000)).as_bytes(), NONCE).is_err());
        for (message, expected) in [
            (FINAL.replace("p=d", "p=e"), Refusal::Credentials),
            (FINAL.replace("biws", "eSws"), Refusal::Malformed("expected `c=` and the header of the first message")),
            (FINAL.replace("k0,", "k1,"), Refusal::Malformed("expected `r=` and the nonce of this exchange")),
            (FINAL.replace("p=dHzb", "p="), Refusal::Malformed("the proof is not 32 bytes in base64")),
            (FINAL.replace(",p=", ",q="), Refusal::Malformed("expected `p=` and a proof")),
            (String::new(), Refusal::Malformed("expected `p=` and a proof")),
        ] {
            let exchange = Exchange::begin(&users(), FIRST.as_bytes(), NONCE).expect("a first message").0;
            assert_eq!(exchange.finish(message.as_bytes()).err(), Some(expected), "{message}");
        }
    }

    /// What a client makes of the server's first message.
    fn client_final(password: &str, header: &str, bare: &str, answer: &[u8]) -> String {
        let answer = std::str::from_utf8(answer).expect("text");
        let field = |name: &str| answer.split(',').find_map(|part| part.strip_prefix(name)).expect(name);
        let salt = STANDARD.decode(field("s=")).expect("base64");
        let rounds: NonZeroU32 = field("i=").parse().expect("a number");
        let mut salted = [0; KEY_BYTES];
        ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
        let client_key = sign(&salted, b"Client Key");
        let without_proof = format!("c={},r={}", STANDARD.encode(header), field("r="));
        let said = format!("{bare},{answer},{without_proof}");
        let signature = sign(&hash(&client_key), said.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(byte, other)| byte ^ other).collect();
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn only_users_with_their_password_come_in() {
        for (header, bare, password, expected) in [
            ("n,,", "n=user,r=abc", "pencil", Ok("user")),
            ("y,a=user,", "n=user,r=abc", "pencil", Ok("user")),
            ("n,,", "n=\u{ff55}ser,r=abc", "pencil", Ok("user")),
            ("n,,", "n=user,r=abc", "Pencil", Err(Refusal::Credentials)),
            ("n,,", "n=eve,r=abc", "pencil", Err(Refusal::Credentials)),
        ] {
            let nonce = new_nonce().expect("random numbers");
            let (exchange, answer) =
                Exchange::begin(&users(), format!("{header}{bare}").as_bytes(), &nonce).expect(bare);
            let result = exchange.finish(client_final(password, header, bare, &answer).as_bytes());
            assert_eq!(result.map(|(user, _)| user), expected.map(str::to_owned), "{header}{bare}");
        }
    }

    #[test]
    fn names_may_have_signs_of_the_protocol() {
        assert_eq!(unescaped("a=2Cb=3Dc"), Ok("a,b=c".to_owned()));
        assert_ne!(new_nonce(), new_nonce());
    }
}
