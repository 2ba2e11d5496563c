//! Randomness for secrets and for names that other clients must not guess.

/// Random bytes from the operating system.
///
/// # Panics
///
/// If the operating system has no randomness. A guessable secret would be worse than the end of the caller.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[allow(clippy::panic)]
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the operating system gives no random bytes: {error}");
    }
    bytes
}

/// `N` random bytes as lower-case hexadecimal digits.
#[must_use]
pub fn random_hex<const N: usize>() -> String {
    crate::digest::to_hex(&random_bytes::<N>())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_hex_never_repeats() {
        let secrets: HashSet<String> = (0..100).map(|_| random_hex::<16>()).collect();
        assert_eq!(secrets.len(), 100);
        assert!(secrets.iter().all(|secret| secret.len() == 32));
    }
}
