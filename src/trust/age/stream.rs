//! A file's header and its chunks, written and read as they come.

use std::io::{self, BufRead, BufReader, Read, Write};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hkdf, hmac, rand};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::{AgeError, Identity, Recipient};

const VERSION: &str = "age-encryption.org/v1\n";
const X25519_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// A line of a header: a stanza's argument or body line is never near this.
const MOST_LINE: u64 = 1 << 10;
/// Lines of a header: some hundreds of recipients.
const MOST_LINES: usize = 2_000;
/// A stanza's body is in lines of this many characters; a shorter one ends it.
const BODY_LINE: usize = 64;

/// Encrypts what is written to it. [`Encryptor::finish`] must be called: without it the file is one that was cut short.
pub struct Encryptor<W> {
    output: W,
    cipher: Chunks,
    buffer: Zeroizing<Vec<u8>>,
}

/// Decrypts as it is read. An error is a file that was cut short or altered; what was read before it is good.
pub struct Decryptor<R> {
    input: BufReader<R>,
    cipher: Chunks,
    buffer: Zeroizing<Vec<u8>>,
    /// How much of the buffer has been given out.
    given: usize,
    ended: bool,
}

impl<W: Write> Encryptor<W> {
    /// Writes the header of a file for these recipients.
    pub fn new(recipients: &[Recipient], mut output: W) -> Result<Self, AgeError> {
        if recipients.is_empty() {
            return Err(AgeError::NoRecipient);
        }
        let file_key = random::<16>()?;
        let mut header = String::from(VERSION);
        for recipient in recipients {
            let ephemeral = Identity::generate()?;
            let share = ephemeral.recipient()?.0;
            let shared =
                ephemeral.shared_with(&recipient.0).ok_or_else(|| AgeError::Recipient(recipient.to_string()))?;
            let mut wrapped = file_key.to_vec();
            wrap_key(&shared, &share, &recipient.0)?
                .seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut wrapped)
                .map_err(|_| AgeError::Cipher)?;
            let encoded = |bytes: &[u8]| BASE64_STANDARD_NO_PAD.encode(bytes);
            header.push_str(&format!("-> X25519 {}\n{}\n", encoded(&share), encoded(&wrapped)));
        }
        header.push_str("---");
        let mac = hmac::sign(&mac_key(&file_key)?, header.as_bytes());
        output.write_all(format!("{header} {}\n", BASE64_STANDARD_NO_PAD.encode(mac.as_ref())).as_bytes())?;
        let nonce = random::<16>()?;
        output.write_all(&*nonce)?;
        let cipher = Chunks::new(&file_key, &nonce)?;
        Ok(Self { output, cipher, buffer: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)) })
    }

    /// Writes the last chunk and gives the output back, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_chunk(true)?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn write_chunk(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.cipher.next_nonce(last)?;
        let sealed = self.cipher.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut *self.buffer);
        sealed.map_err(|_| io::Error::other("the cipher failed"))?;
        self.output.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until it is known whether it is the last.
        if self.buffer.len() == CHUNK && !bytes.is_empty() {
            self.write_chunk(false)?;
        }
        let more = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..more]);
        Ok(more)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl<R: Read> Decryptor<R> {
    /// Reads the header and finds the file's key with one of these identities.
    pub fn new(identities: &[Identity], input: R) -> Result<Self, AgeError> {
        let mut input = BufReader::with_capacity(CHUNK + TAG, input);
        let file_key = read_header(&mut input, identities)?;
        let mut nonce = [0; 16];
        input.read_exact(&mut nonce)?;
        let cipher = Chunks::new(&file_key, &nonce)?;
        Ok(Self { input, cipher, buffer: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)), given: 0, ended: false })
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.given = 0;
        (&mut self.input).take((CHUNK + TAG) as u64).read_to_end(&mut self.buffer)?;
        let last = self.input.fill_buf()?.is_empty();
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the encrypted file was cut short or altered");
        let first = self.cipher.counter == 0;
        let nonce = self.cipher.next_nonce(last)?;
        let opened = self.cipher.key.open_in_place(nonce, Aad::empty(), &mut self.buffer).map_err(|_| damaged())?.len();
        // Only a file of nothing at all ends in an empty chunk.
        if opened == 0 && !first {
            return Err(damaged());
        }
        self.buffer.truncate(opened);
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.buffer.len() && !self.ended {
            self.next_chunk()?;
        }
        let left = &self.buffer[self.given..];
        let more = left.len().min(into.len());
        into[..more].copy_from_slice(&left[..more]);
        self.given += more;
        Ok(more)
    }
}

impl<W> std::fmt::Debug for Encryptor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryptor").finish_non_exhaustive()
    }
}

impl<R> std::fmt::Debug for Decryptor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryptor").finish_non_exhaustive()
    }
}

/// The payload's key and the number of the next chunk.
struct Chunks {
    key: LessSafeKey,
    counter: u64,
}

impl Chunks {
    fn new(file_key: &[u8; 16], nonce: &[u8; 16]) -> Result<Self, AgeError> {
        Ok(Self { key: chacha(&*derive(nonce, file_key, b"payload")?)?, counter: 0 })
    }

    /// Eleven bytes of counter, one that says whether the chunk is the last.
    fn next_nonce(&mut self, last: bool) -> io::Result<Nonce> {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.counter.to_be_bytes());
        nonce[11] = u8::from(last);
        self.counter = self.counter.checked_add(1).ok_or_else(|| io::Error::other("too long a file"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// The file key of a header that one of these identities opens and whose MAC is right.
fn read_header(input: &mut impl BufRead, identities: &[Identity]) -> Result<Zeroizing<[u8; 16]>, AgeError> {
    let mut header = String::new();
    if line(input, &mut header)? != VERSION.trim_end() {
        return Err(AgeError::Header("it does not begin with age-encryption.org/v1"));
    }
    let mut file_key = None;
    let mut lines = 0;
    loop {
        lines += 1;
        let before = header.len();
        let stanza = line(input, &mut header)?;
        if let Some(mac) = stanza.strip_prefix("--- ") {
            let signed = &header[..before + 3];
            let mac = BASE64_STANDARD_NO_PAD.decode(mac).map_err(|_| AgeError::Header("its last line is no MAC"))?;
            let file_key: Zeroizing<[u8; 16]> = file_key.ok_or(AgeError::OtherKey)?;
            let computed = hmac::sign(&mac_key(&file_key)?, signed.as_bytes());
            constant_time::verify_slices_are_equal(computed.as_ref(), &mac).map_err(|_| AgeError::Altered)?;
            return Ok(file_key);
        }
        let arguments = stanza.strip_prefix("-> ").ok_or(AgeError::Header("a line is neither stanza nor MAC"))?;
        let mut body = String::new();
        loop {
            lines += 1;
            let more = line(input, &mut header)?;
            body.push_str(&more);
            if more.len() < BODY_LINE {
                break;
            }
        }
        if lines > MOST_LINES {
            return Err(AgeError::Header("its header is too long"));
        }
        if file_key.is_none()
            && let Some(share) = arguments.strip_prefix("X25519 ")
        {
            file_key = identities.iter().find_map(|identity| unwrap(identity, share, &body));
        }
    }
}

/// The next line without its newline; all of it goes into the header.
fn line(input: &mut impl BufRead, header: &mut String) -> Result<String, AgeError> {
    let before = header.len();
    let read = input.take(MOST_LINE).read_line(header);
    read.map_err(|_| AgeError::Header("its header is no text"))?;
    let line = header[before..].strip_suffix('\n').ok_or(AgeError::Header("its header breaks off"))?;
    Ok(line.to_owned())
}

fn unwrap(identity: &Identity, share: &str, body: &str) -> Option<Zeroizing<[u8; 16]>> {
    let share: [u8; 32] = BASE64_STANDARD_NO_PAD.decode(share).ok()?.try_into().ok()?;
    let mut wrapped = Zeroizing::new(BASE64_STANDARD_NO_PAD.decode(body).ok()?);
    if wrapped.len() != 16 + TAG {
        return None;
    }
    let key = wrap_key(&*identity.shared_with(&share)?, &share, &identity.recipient().ok()?.0).ok()?;
    let opened = key.open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut wrapped).ok()?;
    let mut file_key = Zeroizing::new([0; 16]);
    file_key.copy_from_slice(opened);
    Some(file_key)
}

fn wrap_key(shared: &[u8; 32], share: &[u8; 32], recipient: &[u8; 32]) -> Result<LessSafeKey, AgeError> {
    chacha(&*derive(&[&share[..], recipient].concat(), shared, X25519_INFO)?)
}

fn mac_key(file_key: &[u8; 16]) -> Result<hmac::Key, AgeError> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*derive(&[], file_key, b"header")?))
}

fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    let mut derived = Zeroizing::new([0; 32]);
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let filled = key.expand(&[info], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *derived));
    filled.map_err(|_| AgeError::Cipher)?;
    Ok(derived)
}

fn chacha(key: &[u8; 32]) -> Result<LessSafeKey, AgeError> {
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| AgeError::Cipher)?))
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, AgeError> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(&mut *bytes).map_err(|_| AgeError::Cipher)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encrypted(to: &[Recipient], plain: &[u8]) -> Vec<u8> {
        let mut encryptor = Encryptor::new(to, Vec::new()).unwrap();
        encryptor.write_all(plain).unwrap();
        encryptor.finish().unwrap()
    }

    fn decrypted(with: &[Identity], file: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut decryptor = Decryptor::new(with, file).map_err(io::Error::other)?;
        decryptor.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn opens_with_any_recipients_key_and_with_no_other() {
        let [one, two, other] = [(); 3].map(|()| Identity::generate().unwrap());
        let to = [one.recipient().unwrap(), two.recipient().unwrap()];
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let file = encrypted(&to, &plain);
            for identity in [&one, &two] {
                let identity: Identity = identity.to_encoded().parse().unwrap();
                assert!(decrypted(&[identity], &file).unwrap() == plain, "{length}");
            }
            // Cut anywhere, it does not open to its end.
            for cut in [0, 10, 200, file.len() - 17, file.len() - 1] {
                assert!(decrypted(std::slice::from_ref(&one), &file[..cut]).is_err(), "{length} cut at {cut}");
            }
        }
        let file = encrypted(&to, b"secret");
        assert!(matches!(Decryptor::new(&[other], &file[..]), Err(AgeError::OtherKey)));
        for position in 0..file.len() {
            let mut altered = file.clone();
            altered[position] ^= 1;
            assert!(decrypted(std::slice::from_ref(&two), &altered).is_err(), "byte {position}");
        }
        // Whole chunks left out.
        let file = encrypted(&to, &[7; 3 * CHUNK]);
        let end = file.len() - (CHUNK + TAG);
        assert!(decrypted(std::slice::from_ref(&one), &file[..end]).is_err());
    }

    /// Made by `age-keygen` and `age` 1.1.1 of Debian.
    #[test]
    fn keys_are_written_as_age_writes_them() {
        let identity: Identity =
            "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX".parse().unwrap();
        let recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
        assert_eq!(identity.recipient().unwrap().to_string(), recipient);
        assert_eq!(recipient.parse::<Recipient>().unwrap(), identity.recipient().unwrap());
        let file = format!("# created: today\n# public key: {recipient}\n{}\n", &*identity.to_encoded());
        assert_eq!(Identity::parse_file(&file).unwrap().len(), 1);
        for wrong in ["", "age1", &recipient[..50], &recipient.to_uppercase().replace('Z', "Q")] {
            assert!(wrong.parse::<Recipient>().is_err(), "{wrong}");
        }
        assert!(recipient.parse::<Identity>().is_err() && Identity::parse_file("# none\n").is_err());
    }
}
