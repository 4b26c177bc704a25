/**
 * A program that wants a Unix socket, as others do at the same moment: at each SIGUSR2 it listens on `<prefix><round>`, and
 * prints what came of it. Its server tells who answers, and does not survive a peer
 * that is rude. Takes the prefix.
 */
import { Effect } from "effect"
import { createServer } from "node:net"
import { listen } from "../../src/internal/bind.ts"

const prefix = process.argv[2]!
/** Milliseconds: whoever gets the signal within one of these begins at its end. */
const slot = 30
let round = 0

process.on("SIGUSR2", () => {
  const path = `${prefix}${round++}`
  const server = createServer((socket) => void socket.end(`${process.pid}`))
  const begin = Math.ceil((Date.now() + 5) / slot) * slot
  while (Date.now() < begin);
  const outcome = Effect.match(listen(server, { path }), {
    onSuccess: () => "won",
    onFailure: ({ message }) => message
  })
  Effect.runFork(Effect.flatMap(outcome, (came) => Effect.sync(() => console.log(`${path}: ${came}`))))
})

// Nothing else keeps it running.
setInterval(() => {}, 60_000)
console.log("ready")
