// Allocates, keeps and drops objects and buffers. Prints "ready" once its heap is in use; then, for
// each line of standard input, its steps so far. Ends with 1 if memory does not hold what was stored.
'use strict';
const kept = new Array(1000).fill(null);
let steps = 0;

function step() {
  const slot = Math.floor(Math.random() * kept.length);
  const old = kept[slot];
  if (old !== null) {
    const value = slot & 255;
    if (old.slot !== slot || old.text !== `slot ${slot}` || old.bytes.some((b) => b !== value)) {
      console.error(`slot ${slot} holds ${old.text}`);
      process.exit(1);
    }
  }
  const size = 1 + Math.floor(Math.random() * 16384);
  kept[slot] = { slot, text: `slot ${slot}`, bytes: Buffer.alloc(size, slot & 255),
    trash: Array.from({ length: 100 }, (_, i) => ({ i })) };
  steps++;
}

function churn() {
  for (let i = 0; i < 50; i++) step();
  setImmediate(churn);
}
for (let i = 0; i < 5000; i++) step();
churn();
console.log('ready');
require('readline').createInterface({ input: process.stdin })
  .on('line', () => console.log(steps)).on('close', () => process.exit(0));
