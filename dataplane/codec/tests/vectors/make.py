"""Makes opus-*.bin with libopus 1.3.1 of Debian 12 (package libopus0): python3 make.py

A file is packets of 20 ms of a made-up voice, each with two bytes of length before it, the least significant first, and an
empty one at the end; then of what libopus decodes them to (48 kHz, one channel) every 16th sample, as 16 bits likewise.
In silk-wide-fec the packets 7, 17 and 27 count as lost for the decoder and are made up from the redundancy in the next.
"""
import ctypes
import math
import struct

opus = ctypes.CDLL("libopus.so.0")
opus.opus_encoder_create.restype = opus.opus_decoder_create.restype = ctypes.c_void_p
VOIP, AUDIO = 2048, 2049
SET = {"bitrate": 4002, "bandwidth": 4008, "complexity": 4010, "fec": 4012, "loss": 4014}
NARROW, WIDE, SUPER, FULL = 1101, 1103, 1104, 1105


def voice(n, channel):
    t = n / 48000
    phase = (150 * t + 3 * math.sin(2 * t)) * math.tau
    voiced = sum(math.sin(k * phase + channel) / k for k in range(1, 30))
    return int(max(math.sin(t * 3 * math.tau), 0) * voiced * 6000 + 300 * math.sin(n * n / 9e4))


def make(name, application, channels=1, lossy=False, **settings):
    error = ctypes.c_int()
    encoder = ctypes.c_void_p(opus.opus_encoder_create(48000, channels, application, ctypes.byref(error)))
    for key, value in settings.items():
        assert opus.opus_encoder_ctl(encoder, SET[key], ctypes.c_int(value)) == 0
    packets = []
    for at in range(30):
        frame = [voice(at * 960 + n, channel) for n in range(960) for channel in range(channels)]
        out = ctypes.create_string_buffer(1275)
        length = opus.opus_encode(encoder, (ctypes.c_int16 * len(frame))(*frame), 960, out, 1275)
        assert length > 2
        packets.append(out.raw[:length])
    decoder = ctypes.c_void_p(opus.opus_decoder_create(48000, 1, ctypes.byref(error)))
    pcm, heard = (ctypes.c_int16 * 960)(), []
    for at, packet in enumerate(packets):
        if lossy and at % 10 == 7:
            packet = packets[at + 1]
            assert opus.opus_decode(decoder, packet, len(packet), pcm, 960, 1) == 960
        else:
            assert opus.opus_decode(decoder, packet, len(packet), pcm, 960, 0) == 960
        heard += pcm
    with open(f"opus-{name}.bin", "wb") as file:
        for packet in packets + [b""]:
            file.write(struct.pack("<H", len(packet)) + packet)
        file.write(struct.pack("<1800h", *heard[::16]))


make("silk-narrow", VOIP, bitrate=12000, bandwidth=NARROW)
make("silk-wide-fec", VOIP, lossy=True, bitrate=20000, bandwidth=WIDE, fec=1, loss=20)
make("hybrid", VOIP, bitrate=28000, bandwidth=FULL)
make("celt", AUDIO, bitrate=64000, bandwidth=FULL)
make("stereo", VOIP, channels=2, bitrate=28000, bandwidth=WIDE)
