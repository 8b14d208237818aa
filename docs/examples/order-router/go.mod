module example.org/order-router

go 1.21
