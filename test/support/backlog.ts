/**
 * Listens on descriptor 3 with the backlog that is its argument, and says how many of ten connections get through while
 * nobody accepts them.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { SocketServer } from "effect/socket"
import { KmsTcp } from "effect-kms"
import { spawnSync } from "node:child_process"

const connect = `
  const { connect } = require("node:net")
  let count = 0
  for (let i = 0; i < 10; i++) connect(Number(process.argv[1]), "127.0.0.1").on("connect", () => count++).on("error", () => {})
  setTimeout(() => { console.log(count); process.exit() }, 500)
`

Layer.effectDiscard(
  Effect.gen(function* () {
    const { address } = yield* SocketServer.SocketServer
    const port = "port" in address ? address.port : 0
    // As long as this one waits it accepts nothing.
    const { stdout } = spawnSync(process.execPath, ["-e", connect, String(port)])
    console.log(`connected ${String(stdout).trim()}`)
    process.exit()
  })
).pipe(Layer.provide(KmsTcp.layer({ fd: 3, backlog: Number(process.argv[2]) })), Layer.launch, NodeRuntime.runMain)
