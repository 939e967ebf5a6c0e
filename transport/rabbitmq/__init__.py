"""RabbitMQ behind the transport seam, over aio-pika. Only this package imports aio-pika and its protocol layer.

`transport` puts together `link` (a connection that is repaired), `publisher` and `consumer` (each on a `channel` of its
own) and `declaring`. `in_flight` and `acknowledging` are the bookkeeping, without I/O; `tap` sees every frame that
arrives; `talking` bounds every question.
"""

from transport.rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQTransport"]
