// Folders as zips, without compression, so that each of several that are dropped keeps its name.
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crcOf(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

// What a local header and an entry of the directory have in common (PKZIP APPNOTE 4.3.7, 4.3.12).
function told(view, at, { crc, size, name }) {
  view.setUint16(at, 20, true); // the version that reads it
  view.setUint16(at + 2, 0x0800, true); // names are UTF-8; method and time stay 0
  view.setUint16(at + 8, 0x21, true); // 1980-01-01
  view.setUint32(at + 10, crc, true);
  view.setUint32(at + 14, size, true);
  view.setUint32(at + 18, size, true);
  view.setUint16(at + 22, name.length, true);
}

async function zipped(folder, files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const file of files) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const name = new TextEncoder().encode(folder + '/' + file.name);
    const entry = { crc: crcOf(bytes), size: bytes.length, name };
    const head = new DataView(new ArrayBuffer(30)), listed = new DataView(new ArrayBuffer(46));
    head.setUint32(0, 0x04034b50, true);
    told(head, 4, entry);
    listed.setUint32(0, 0x02014b50, true);
    told(listed, 6, entry);
    listed.setUint32(42, offset, true);
    parts.push(head.buffer, name, bytes);
    directory.push(listed.buffer, name);
    offset += 30 + name.length + bytes.length;
  }
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, directory.reduce((sum, part) => sum + (part.byteLength ?? part.length), 0), true);
  end.setUint32(16, offset, true);
  return new File([...parts, ...directory, end.buffer], folder + '.zip', { type: 'application/zip' });
}
