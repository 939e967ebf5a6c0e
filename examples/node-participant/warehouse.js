// The warehouse: what it does, and nothing about messages. An effect is a label under the key of its command.

import { createHash } from "node:crypto";

// Each handler gets the body, the command's idempotency-key and, for an undo, the effect that it is to take back
// (undefined when there is none). It returns a reply, and the effect that stands afterwards.
export const handlers = {
  "warehouse.CreateShippingLabel": ({ order_id }, key) => {
    if (order_id.includes("label-refused")) {
      return { reply: "warehouse.LabelRefused", body: { order_id } };
    }
    const tracking_code = `track-${createHash("sha256").update(key).digest("hex").slice(0, 16)}`;
    return { reply: "warehouse.ShippingLabelCreated", body: { order_id, tracking_code }, effect: { tracking_code } };
  },

  // Nothing to take back is a success as well: the label was never made, and now never will be.
  "warehouse.VoidShippingLabel": ({ order_id }, _key, undone) => ({
    reply: "warehouse.ShippingLabelVoided",
    body: { order_id },
    undone: undone ? { ...undone, voided: true } : undefined,
  }),
};
