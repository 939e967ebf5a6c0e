"""What the byte code of a method tells about `self`."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN202, PIE794, PLC3002, SIM108

from sagas.bytecode import assigned_twice, uses_of_self


def test_an_assignment_to_self_is_a_write() -> None:
    def hook(self, reply):
        self.reservation_id = reply.reservation_id

    assert uses_of_self(hook).writes == {"reservation_id"}
    assert uses_of_self(hook).reads == set()


def test_an_assignment_of_another_parameter_is_a_write() -> None:
    def hook(self, reply):
        self.last = reply

    assert uses_of_self(hook).writes == {"last"}


def test_assigning_in_place_reads_and_writes() -> None:
    def hook(self, reply):
        self.count += reply.count

    assert uses_of_self(hook).writes == {"count"}
    assert uses_of_self(hook).reads == {"count"}


def test_several_assignments_in_one_statement_are_all_seen() -> None:
    def hook(self, reply):
        self.a = self.b = reply.x
        self.c, self.d = reply.y, reply.z

    assert uses_of_self(hook).writes == {"a", "b", "c", "d"}


def test_deleting_is_a_write() -> None:
    def hook(self, reply):
        del self.a

    assert uses_of_self(hook).writes == {"a"}


def test_what_is_assigned_to_something_else_is_no_write_of_self() -> None:
    def hook(self, reply):
        self.customer.name = reply.name
        reply.seen = True
        other = self
        print(other)

    assert uses_of_self(hook).writes == set()
    assert uses_of_self(hook).reads == {"customer"}


def test_nested_functions_and_comprehensions_that_see_self_count() -> None:
    def build(self):
        return [self.sku for _ in range(3)], (lambda: self.total)()

    assert uses_of_self(build).reads == {"sku", "total"}


def test_a_nested_function_with_a_self_of_its_own_does_not_count() -> None:
    def build(self):
        def other(self):
            self.total = 1

        return other(self.order)

    assert uses_of_self(build).writes == set()
    assert uses_of_self(build).reads == {"order"}


def test_methods_that_are_called_count_however_deep() -> None:
    def build(self):
        return self.helper()

    def helper(self):
        return self.deeper(), self.build()

    def deeper(self):
        self.count = 1

    methods = {"build": build, "helper": helper, "deeper": deeper}
    assert uses_of_self(build, lambda name, written: methods.get(name)).writes == {"count"}
    assert uses_of_self(build).writes == set()


def test_a_function_without_parameters_uses_nothing() -> None:
    def build():
        return 1

    assert not uses_of_self(build).reads | uses_of_self(build).writes


def body_of(function):
    return next(one for one in function.__code__.co_consts if hasattr(one, "co_code"))


def test_a_name_that_a_class_body_gives_two_values_is_found() -> None:
    def define():
        class X:
            a = 1
            b = 2
            a = 3

        return X

    assert assigned_twice(body_of(define)) == {"a"}


def test_a_class_body_with_branches_may_give_a_name_two_values() -> None:
    def define(old):
        class X:
            if old:
                a = 1
            else:
                a = 2

        return X

    assert assigned_twice(body_of(define)) == set()
