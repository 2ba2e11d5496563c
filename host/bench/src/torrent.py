"""A BitTorrent peer, for `tightwad bench swarm --torrent`: libtorrent with the same file, uplink and peers.

    torrent.py make FILE PIECE_BYTES TORRENT
    torrent.py peer TORRENT FOLDER ADDRESS:PORT UP_BYTES [ADDRESS:PORT ...]
"""

import json
import sys
import time

import libtorrent as lt


def make(file, piece, torrent):
    storage = lt.file_storage()
    lt.add_files(storage, file)
    builder = lt.create_torrent(storage, piece_size=int(piece))
    lt.set_piece_hashes(builder, file.rsplit("/", 1)[0])
    with open(torrent, "wb") as out:
        out.write(lt.bencode(builder.generate()))


def peer(torrent, folder, listen, up, *peers):
    session = lt.session(
        {
            "listen_interfaces": listen,
            "upload_rate_limit": int(up),
            "rate_limit_ip_overhead": False,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            "allow_multiple_connections_per_ip": True,
            "unchoke_slots_limit": 16,
        }
    )
    # libtorrent's default filter puts private addresses into a class without a rate limit.
    all_addresses = lt.ip_filter()
    all_addresses.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
    session.set_peer_class_filter(all_addresses)
    start = time.monotonic()
    handle = session.add_torrent({"ti": lt.torrent_info(torrent), "save_path": folder})
    for other in peers:
        address, port = other.rsplit(":", 1)
        handle.connect_peer((address, int(port)))
    last_attempt = start
    while not handle.status().is_seeding:
        time.sleep(0.02)
        # A peer that did not listen before can listen now.
        if time.monotonic() - last_attempt > 1.0:
            last_attempt = time.monotonic()
            for other in peers:
                address, port = other.rsplit(":", 1)
                handle.connect_peer((address, int(port)))
    print(json.dumps({"path": folder, "seconds": time.monotonic() - start}), flush=True)
    # The benchmark ends this process. Until then, the process seeds.
    while True:
        time.sleep(1)


{"make": make, "peer": peer}[sys.argv[1]](*sys.argv[2:])
