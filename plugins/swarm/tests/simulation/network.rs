//! Moves bytes. The fetches of a link share it evenly. The fetches of a piece share its missing bytes.

use std::collections::BTreeMap;

use super::SECOND;

/// A fetch in flight.
#[derive(Debug, Clone)]
pub struct Flow {
    pub from: u32,
    pub to: u32,
    pub piece: u32,
    pub started: u64,
    pub bytes: f64,
    rate: f64,
}

/// A piece in flight to a peer.
#[derive(Debug, Clone)]
struct Download {
    missing: f64,
    flows: Vec<usize>,
    /// The time until which its bytes are counted.
    advanced_to: u64,
    /// The version of its scheduled completion. It changes with the rates.
    version: u64,
}

#[derive(Debug, Clone, Default)]
struct Link {
    up: f64,
    down: f64,
    uploads: Vec<usize>,
    downloads: Vec<usize>,
}

/// The completion of a piece. It is stale if its version differs from the download's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Completion {
    pub to: u32,
    pub piece: u32,
    pub version: u64,
}

#[derive(Debug, Default)]
pub struct Network {
    links: Vec<Link>,
    flows: Vec<Option<Flow>>,
    free_flows: Vec<usize>,
    downloads: BTreeMap<(u32, u32), Download>,
    version: u64,
    /// Bytes that each peer sent.
    pub sent: Vec<f64>,
    /// Completions for the calendar.
    pub scheduled: Vec<(u64, Completion)>,
}

impl Network {
    pub fn join(&mut self, (up, down): (f64, f64)) {
        self.links.push(Link { up, down, ..Link::default() });
        self.sent.push(0.0);
    }

    pub fn uploads(&self, from: u32) -> usize {
        self.links[from as usize].uploads.len()
    }

    /// The number of fetches of `to` from `from`.
    pub fn between(&self, from: u32, to: u32) -> u32 {
        let flows = self.links[to as usize].downloads.iter().flat_map(|flow| &self.flows[*flow]);
        flows.filter(|flow| flow.from == from).count() as u32
    }

    pub fn start_fetch(&mut self, now: u64, from: u32, to: u32, piece: u32, missing: f64) {
        let flow = Flow { from, to, piece, started: now, bytes: 0.0, rate: 0.0 };
        let number = self.free_flows.pop().unwrap_or(self.flows.len());
        if number == self.flows.len() {
            self.flows.push(None);
        }
        self.flows[number] = Some(flow);
        let download = self.downloads.entry((to, piece));
        download
            .or_insert_with(|| Download { missing, flows: Vec::new(), advanced_to: now, version: 0 })
            .flows
            .push(number);
        self.links[from as usize].uploads.push(number);
        self.links[to as usize].downloads.push(number);
        self.share_links(now, &[from], &[to]);
    }

    /// Ends the fetches of a complete piece. Returns them, the fastest one first. `None`: the completion is stale.
    pub fn complete(&mut self, now: u64, completion: Completion) -> Option<Vec<Flow>> {
        let key = (completion.to, completion.piece);
        let numbers = self.downloads.get(&key).filter(|one| one.version == completion.version)?.flows.clone();
        self.advance(now, key);
        let mut flows = self.remove(now, &numbers);
        flows.sort_by(|a, b| b.rate.total_cmp(&a.rate));
        Some(flows)
    }

    /// Removes a peer. Returns its fetches, and the fetches from it.
    pub fn leave(&mut self, now: u64, peer: u32) -> Vec<Flow> {
        let link = &self.links[peer as usize];
        let numbers: Vec<usize> = link.uploads.iter().chain(&link.downloads).copied().collect();
        for number in &numbers {
            if let Some(flow) = &self.flows[*number] {
                self.advance(now, (flow.to, flow.piece));
            }
        }
        self.remove(now, &numbers)
    }

    fn remove(&mut self, now: u64, numbers: &[usize]) -> Vec<Flow> {
        let mut gone = Vec::new();
        for number in numbers {
            let Some(flow) = self.flows[*number].take() else { continue };
            self.free_flows.push(*number);
            self.links[flow.from as usize].uploads.retain(|other| other != number);
            self.links[flow.to as usize].downloads.retain(|other| other != number);
            let key = (flow.to, flow.piece);
            if let Some(download) = self.downloads.get_mut(&key) {
                download.flows.retain(|other| other != number);
                if download.flows.is_empty() {
                    self.downloads.remove(&key);
                }
            }
            gone.push(flow);
        }
        let from: Vec<u32> = gone.iter().map(|flow| flow.from).collect();
        let to: Vec<u32> = gone.iter().map(|flow| flow.to).collect();
        self.share_links(now, &from, &to);
        gone
    }

    /// Counts the bytes of a download until `now`.
    fn advance(&mut self, now: u64, key: (u32, u32)) {
        let Some(download) = self.downloads.get_mut(&key) else { return };
        let seconds = (now - download.advanced_to) as f64 / SECOND;
        download.advanced_to = now;
        for number in &download.flows {
            let Some(flow) = &mut self.flows[*number] else { continue };
            let bytes = flow.rate * seconds;
            flow.bytes += bytes;
            download.missing -= bytes;
            self.sent[flow.from as usize] += bytes;
        }
    }

    /// Distributes links anew: the uplinks of `from`, the downlinks of `to`.
    fn share_links(&mut self, now: u64, from: &[u32], to: &[u32]) {
        let ups = from.iter().flat_map(|peer| self.links[*peer as usize].uploads.clone());
        let downs = to.iter().flat_map(|peer| self.links[*peer as usize].downloads.clone());
        let mut changed: Vec<usize> = ups.chain(downs).collect();
        changed.sort_unstable();
        changed.dedup();
        let mut keys: Vec<(u32, u32)> = changed
            .iter()
            .flat_map(|number| &self.flows[*number])
            .map(|flow| (flow.to, flow.piece))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        for key in &keys {
            self.advance(now, *key);
        }
        for number in changed {
            let Some(flow) = &mut self.flows[number] else { continue };
            let (up, down) = (&self.links[flow.from as usize], &self.links[flow.to as usize]);
            flow.rate = (up.up / up.uploads.len() as f64).min(down.down / down.downloads.len() as f64);
        }
        for key in keys {
            self.schedule(now, key);
        }
    }

    fn schedule(&mut self, now: u64, key: (u32, u32)) {
        let Some(download) = self.downloads.get_mut(&key) else { return };
        let rates: f64 =
            download.flows.iter().flat_map(|flow| &self.flows[*flow]).map(|flow| flow.rate).sum();
        self.version += 1;
        download.version = self.version;
        let at = now + (download.missing.max(0.0) / rates * SECOND).ceil() as u64;
        self.scheduled.push((at, Completion { to: key.0, piece: key.1, version: self.version }));
    }
}
