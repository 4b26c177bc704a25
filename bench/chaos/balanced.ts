/**
 * Two servers behind HAProxy, restarted in turn. Their lame duck is longer than the checks take to notice.
 *
 * Nothing may fail here, and there is nothing to be explained.
 */
import { Effect } from "effect"
import * as HaProxy from "./haproxy.ts"
import { clients, type Load } from "./load.ts"
import * as Random from "./random.ts"
import { type Ground, plan, roll } from "./rolling.ts"
import type { Scenario } from "./scenario.ts"

/** Five times what the checks need: there are few cores, and everything runs on them. */
export const lameDuck = 5 * HaProxy.check.inter * HaProxy.check.fall

export interface Balanced {
  readonly seed: number
  readonly restarts: number
  readonly lameDuck?: number | undefined
  readonly clients?: Load["clients"] | undefined
  /** Spoils the servers, to see that the clients count. */
  readonly breakage?: "exits" | undefined
}

export const balanced = Effect.fnUntraced(function* (
  options: Balanced,
  progress: (done: number) => void
): Effect.fn.Return<Scenario, unknown> {
  // No connection has its own end at these addresses, so that a port is free again when its server has gone.
  const hosts = ["127.0.0.2", "127.0.0.3"] as const
  const ports: [readonly [number, number, number], readonly [number, number, number]] = [
    [0, 0, 0],
    [0, 0, 0]
  ]
  const ground: Ground = {
    serving: (slot) => ({ host: hosts[slot], ports: ports[slot], reusePort: false, breakage: options.breakage }),
    listening: (slot, at) => {
      ports[slot] = at
    }
  }
  const steps = plan(Random.make(options.seed), options.restarts, {
    lameDucks: [options.lameDuck ?? lameDuck],
    surges: false
  })
  let output = () => ""
  const begin = Effect.gen(function* () {
    const {
      http,
      http2,
      output: printed
    } = yield* HaProxy.run(hosts.map((host, slot) => ({ host, ports: ports[slot]! })))
    output = printed
    return { seed: options.seed, http, http2, clients: options.clients ?? clients }
  })
  const rolled = yield* roll(ground, steps, begin, progress)
  return {
    ...rolled,
    name: `behind HAProxy, lame duck ${options.lameDuck ?? lameDuck} ms`,
    restarts: options.restarts,
    notes: HaProxy.misjudged(output()),
    explain: () => undefined
  }
})
