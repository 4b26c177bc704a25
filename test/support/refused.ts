/**
 * A program that may do little, also where it is started by root: listens on a path, prints why it cannot, and has nothing
 * else to do. Takes the path.
 */
import { Effect } from "effect"
import { createServer } from "node:net"
import { listen } from "../../src/internal/bind.ts"

if (process.getuid!() === 0) {
  process.setgroups!([])
  process.setgid!(65534)
  process.setuid!(65534)
}
Effect.runFork(
  Effect.match(listen(createServer(), { path: process.argv[2]! }), {
    onSuccess: () => console.log("It listens"),
    onFailure: ({ message }) => console.log(message)
  })
)
