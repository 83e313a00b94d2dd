// The npm build of Umbral in a loop, as bench/engine_loop.py is for the engines of this project: for each line
// `OPERATION TIMES` on standard input one line with the seconds of processor time that it took.
"use strict";

const readline = require("readline");
const umbral = require("@nucypher/umbral-pre");

const delegating = umbral.SecretKey.random();
const receiving = umbral.SecretKey.random();
const signer = new umbral.Signer(umbral.SecretKey.random());
const [delegatingKey, receivingKey] = [delegating.publicKey(), receiving.publicKey()];
const verifyingKey = signer.verifyingKey();
const plaintext = new Uint8Array(64);
const [capsule, ciphertext] = umbral.encrypt(delegatingKey, plaintext);
const makeKfrags = () => umbral.generateKFrags(delegating, receivingKey, signer, 2, 3, true, true);
const kfrags = makeKfrags();
const cfrags = kfrags.slice(0, 2).map((kfrag) => umbral.reencrypt(capsule, kfrag));
const bytes = { capsule: capsule.toBytes(), kfrag: kfrags[0].toBytes(), cfrag: cfrags[0].toBytes() };

const verifyKfrag = () => umbral.KeyFrag.fromBytes(bytes.kfrag).verify(verifyingKey, delegatingKey, receivingKey);
const verifyCfrag = (of, data) =>
  umbral.CapsuleFrag.fromBytes(data).verify(of, verifyingKey, delegatingKey, receivingKey);

const OPERATIONS = {
  encrypt: () => umbral.encrypt(delegatingKey, plaintext),
  kfrags: makeKfrags,
  verify_kfrag: verifyKfrag,
  accept: () => {
    const kfrag = verifyKfrag();
    const [tried] = umbral.encrypt(delegatingKey, new Uint8Array(0));
    verifyCfrag(tried, umbral.reencrypt(tried, kfrag).toBytes());
  },
  parse_capsule: () => umbral.Capsule.fromBytes(bytes.capsule),
  reencrypt: () => umbral.reencrypt(capsule, kfrags[0]).toBytes(),
  verify_cfrag: () => verifyCfrag(capsule, bytes.cfrag),
  decrypt: () => umbral.decryptReencrypted(receiving, delegatingKey, capsule, cfrags, ciphertext),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [name, times] = line.split(" ");
  const operation = OPERATIONS[name];
  const started = process.cpuUsage();
  for (let done = 0; done < Number(times); done += 1) operation();
  const { user, system } = process.cpuUsage(started);
  console.log((user + system) / 1e6);
});
