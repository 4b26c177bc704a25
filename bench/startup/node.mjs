/** Plain `node:http`. */
import { create } from "./listens.mjs"

create()
  .on("request", (_, response) => response.end("Home"))
  .listen(0)
