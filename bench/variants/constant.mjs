/** The ceiling: Fastify, the same token check, and always the same answer. */
import { serve } from './server.mjs'

const details = { sequence: '2', changeDate: '2024-05-10T13:32:02.709Z', resourceOwner: '69629023906488334' }

await serve({ end: () => details })
