/** Every case, in the order of the table. */
import type { Group } from "../case.ts"
import { idle, late, silent } from "./connections.ts"
import { http2, tls } from "./encrypted.ts"
import { again, deadline } from "./deadline.ts"
import { exits } from "./exits.ts"
import { cleanUps } from "./clean-ups.ts"
import { lameDuck } from "./lame-duck.ts"
import { requests } from "./requests.ts"
import { pipelining, streams, uploads } from "./streams.ts"
import { upgrades } from "./upgrades.ts"

export const groups: ReadonlyArray<Group> = [
  requests,
  idle,
  silent,
  pipelining,
  uploads,
  streams,
  upgrades,
  tls,
  http2,
  late,
  deadline,
  again,
  exits,
  cleanUps,
  lameDuck
]
